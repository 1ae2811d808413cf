package api

import (
	"cmp"
	"net"
	"net/http"
	"strconv"
	"strings"

	"github.com/plantops/plantops/store/garden"
	"github.com/plantops/plantops/store/people"
)

// registration is what a device tells that registers by itself.
type registration struct {
	MAC      string   `json:"mac_address" minLength:"1" doc:"of the device, as AA:BB:CC:DD:EE:FF"`
	Firmware *string  `json:"firmware_version" required:"false"`
	Sensors  []string `json:"sensor_types" required:"false"`
}

// credentials are what a device logs in with.
type credentials struct {
	Device   string `json:"device_id"`
	Username string `json:"mqtt_username"`
	Password string `json:"mqtt_password" doc:"nobody can be told it again"`
	Host     string `json:"mqtt_host"`
	Port     int    `json:"mqtt_port"`
}

// register answers only when the credentials work: the broker knows them then, and the old ones are dead.
func (c *call) register() (any, error) {
	if _, _, known := c.Who(c); !known && !c.Pairing() {
		c.w.Header().Set("WWW-Authenticate", `Bearer realm="plantops"`)
		return nil, refuse(http.StatusUnauthorized, "no pairing window is open, and nothing was changed: open one with \"plantops pair\", or send the token of an admin")
	} else if known && !c.role.May(people.Admin) && !c.Pairing() {
		return nil, refuse(http.StatusForbidden, "without a pairing window this takes the role admin")
	}
	told := bodyOf[registration](c)
	r := garden.Registration{MAC: told.MAC, Sensors: told.Sensors}
	if told.Firmware != nil {
		r.Firmware = *told.Firmware
	}
	device, secret, err := c.Server.RegisterDevice(c, r)
	if err != nil {
		return nil, err
	}
	c.Log.Info("a device has registered by itself", "device", device, "remote", c.r.RemoteAddr)
	return c.credentials(device, secret)
}

// credentials are those of a device, with the address of the broker as who asks can reach it.
func (c *call) credentials(device, secret string) (any, error) {
	reach, err := c.Server.Contact(c)
	if err != nil {
		return nil, err
	}
	out := credentials{Device: device, Username: device, Password: secret, Host: hostOf(c.r.Host)}
	host, port, _ := net.SplitHostPort(cmp.Or(reach.TLS, reach.TCP, reach.WebSocket)) // without any, there is no port
	out.Port, _ = strconv.Atoi(port)
	if ip := net.ParseIP(host); host != "" && (ip == nil || !ip.IsUnspecified()) && out.Host == "" {
		out.Host = host
	}
	return out, nil
}

// hostOf is a host without its port.
func hostOf(hostPort string) string {
	if host, _, err := net.SplitHostPort(hostPort); err == nil {
		return host
	}
	return strings.Trim(hostPort, "[]")
}
