package garden

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Bounds on what a device tells.
const (
	maxFirmwareBytes = 64
	maxSensors       = 64
	maxSensorBytes   = 64
)

// Registration is what a device told when it registered by itself.
type Registration struct {
	Device           string
	MAC              string   // as NormalMAC has it; no two devices have the same
	Firmware         string   // "": not told
	Sensors          []string // kinds of sensors; nil: not told
	Created, Renewed int64    // UTC ms, of the first time and the last
}

// NormalMAC returns a hardware address of six bytes in upper case with colons, whatever it is written with. The error is an *InvalidError.
func NormalMAC(written string) (string, error) {
	written = strings.TrimSpace(written)
	if len(written) == 12 { // nothing between the digits
		parts := make([]string, 0, 6)
		for i := 0; i < 12; i += 2 {
			parts = append(parts, written[i:i+2])
		}
		written = strings.Join(parts, ":")
	}
	mac, err := net.ParseMAC(written)
	if err != nil || len(mac) != 6 {
		return "", &InvalidError{"registration", "mac_address", fmt.Sprintf("%.40q is none: write it as AA:BB:CC:DD:EE:FF", written)}
	}
	return strings.ToUpper(mac.String()), nil
}

// Check returns an *InvalidError if the registration is not as it may be, and puts its address into the form in which it is kept.
func (r *Registration) Check() (err error) {
	if r.MAC, err = NormalMAC(r.MAC); err != nil {
		return err
	}
	if !isWord(r.Firmware, maxFirmwareBytes) {
		return &InvalidError{"registration", "firmware_version", fmt.Sprintf("it must be UTF-8 without control characters, of at most %d bytes", maxFirmwareBytes)}
	}
	if len(r.Sensors) > maxSensors {
		return &InvalidError{"registration", "sensor_types", fmt.Sprintf("there are %d, at most %d are allowed", len(r.Sensors), maxSensors)}
	}
	for _, one := range r.Sensors {
		if !isWord(one, maxSensorBytes) {
			return &InvalidError{"registration", "sensor_types", fmt.Sprintf("each must be UTF-8 without control characters, of at most %d bytes", maxSensorBytes)}
		}
	}
	return nil
}

func isWord(s string, most int) bool {
	return len(s) <= most && utf8.ValidString(s) && !strings.ContainsFunc(s, unicode.IsControl)
}

// NewDeviceID is the id of a device that has none.
func NewDeviceID() string { return newID() }

const selectRegistration = `SELECT device.name, mac, firmware, sensors, registration.created, renewed FROM registration JOIN device ON device.id = registration.device`

func registrationOf(v []any) Registration {
	r := Registration{Device: text(v[0]), MAC: text(v[1]), Firmware: text(v[2]), Created: number(v[4]), Renewed: number(v[5])}
	if list := text(v[3]); list != "" {
		_ = json.Unmarshal([]byte(list), &r.Sensors) // what is damaged was not told
	}
	return r
}

// Registrations returns all, in order of device.
func (k *Keeper) Registrations(ctx context.Context) (list []Registration, err error) {
	return k.registrations(ctx, ` ORDER BY device.name`)
}

// Registration returns that of a device.
func (k *Keeper) Registration(ctx context.Context, device string) (Registration, error) {
	return k.registration(ctx, ` WHERE device.name = ?`, device)
}

// RegistrationOf returns that of a hardware address in the form of NormalMAC.
func (k *Keeper) RegistrationOf(ctx context.Context, mac string) (Registration, error) {
	return k.registration(ctx, ` WHERE mac = ?`, mac)
}

func (k *Keeper) registration(ctx context.Context, where, value string) (Registration, error) {
	list, err := k.registrations(ctx, where, value)
	if err != nil || len(list) == 0 {
		return Registration{}, fmt.Errorf("registration of %.80q: %w", value, changedOne(int64(len(list)), err))
	}
	return list[0], nil
}

func (k *Keeper) registrations(ctx context.Context, where string, values ...any) (list []Registration, err error) {
	err = k.db.Read(ctx, func(rows Rows) error {
		list = nil
		return rows.Each(func(v []any) error {
			list = append(list, registrationOf(v))
			return nil
		}, selectRegistration+where, values...)
	})
	if err != nil {
		return nil, fmt.Errorf("read registrations: %w", err)
	}
	return list, nil
}

// maxRegistrations is how many devices may have registered by themselves: in a pairing window anybody may.
const maxRegistrations = 10_000

// RoomToRegister fails with ErrMany when another device is one too many.
func RoomToRegister(rows Rows) error { return room(rows, "registration", maxRegistrations) }

// Register writes what a device told, in the transaction of the store that makes its account. What it does not tell it has told before.
func Register(rows Rows, r Registration, now int64) error {
	id, err := deviceID(rows, r.Device)
	if err != nil {
		return err
	}
	var sensors any
	if r.Sensors != nil {
		list, err := json.Marshal(r.Sensors)
		if err != nil {
			return err
		}
		sensors = string(list)
	}
	_, err = rows.Run(`INSERT INTO registration (device, mac, firmware, sensors, created, renewed) VALUES (?, ?, ?, ?, ?5, ?5)
		ON CONFLICT (device) DO UPDATE SET mac = excluded.mac, firmware = coalesce(excluded.firmware, firmware),
		sensors = coalesce(excluded.sensors, sensors), renewed = excluded.renewed`, id, r.MAC, null(r.Firmware), sensors, now)
	return err
}
