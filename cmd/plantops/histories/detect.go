package histories

import (
	"bytes"
	"strings"
)

// The first bytes of files that are no text.
var (
	magicSQLite  = []byte("SQLite format 3\x00")
	magicGzip    = []byte("\x1f\x8b")
	magicParquet = []byte("PAR1")
	magicZip     = []byte("PK\x03\x04")
	magicTar     = []byte("ustar")
	magicZstd    = []byte("\x28\xb5\x2f\xfd")
	utf16BOMs    = [][]byte{[]byte("\xff\xfe"), []byte("\xfe\xff")}
)

// IsSQLite tells an SQLite file by its first bytes.
func IsSQLite(head []byte) bool { return bytes.HasPrefix(head, magicSQLite) }

// IsGzip tells a file that gzip wrote by its first bytes.
func IsGzip(head []byte) bool { return bytes.HasPrefix(head, magicGzip) }

// linesToSee is how many lines tell whether a file without header is line protocol.
const linesToSee = 20

// Detect tells the format of a text by its beginning, of which 64 KiB are plenty; "" when it may be several. Columns given by name
// make a file CSV. What is known not to work is an error that says what would.
func Detect(head []byte, o Options) (Format, error) {
	switch {
	case len(head) == 0:
		return "", wrongOptions("the file is empty")
	case bytes.HasPrefix(head, magicZip), bytes.HasPrefix(head, magicZstd), len(head) > 262 && bytes.Equal(head[257:262], magicTar):
		return "", wrongOptions("it is an archive: unpack it, and name the file in it")
	case bytes.HasPrefix(head, utf16BOMs[0]), bytes.HasPrefix(head, utf16BOMs[1]):
		return "", wrongOptions("it is UTF-16: write it as UTF-8, for instance iconv -f UTF-16 -t UTF-8 FILE > NEW")
	}
	head = bytes.TrimPrefix(head, utf8BOM)
	if end := bytes.LastIndexByte(head, '\n'); end >= 0 {
		head = head[:end] // the last line may be cut
	}
	first, rest, _ := strings.Cut(string(bytes.TrimLeft(head, "\r\n ")), "\n")
	first = strings.TrimRight(first, "\r ")
	columns := strings.Split(strings.ToLower(first), ",")
	switch {
	case strings.HasPrefix(first, "{"), first == "[" && strings.HasPrefix(strings.TrimSpace(rest), "{"), strings.HasPrefix(first, "[{"), first == "[]":
		return JSON, nil
	case strings.HasPrefix(first, "# INFLUXDB EXPORT"), strings.HasPrefix(first, "# DDL"), strings.HasPrefix(first, "# CONTEXT-"):
		return Influx, nil
	case strings.HasPrefix(first, "#group,"), strings.HasPrefix(first, "#datatype,"):
		return "", wrongOptions("it is annotated CSV of InfluxDB: export line protocol (influxd inspect export-lp), or leave the annotations away")
	case len(columns) > 2 && columns[0] == "created_at" && columns[1] == "entry_id":
		return ThingSpeak, nil
	case o.Time != "" || o.Value != "":
		return CSV, nil
	case isLineProtocol(head):
		return Influx, nil
	}
	for _, separator := range []string{",", ";", "\t"} { // a line of names, one of which is a time
		for _, name := range strings.Split(strings.ToLower(first), separator) {
			for _, usual := range timeNames {
				if strings.Trim(name, `" `) == usual && strings.Contains(first, separator) {
					return CSV, nil
				}
			}
		}
	}
	return "", nil
}

// isLineProtocol tells whether the first line is a point with a time, and most of those that follow.
func isLineProtocol(head []byte) bool {
	points, others := 0, 0
	r := &influx{points: map[string]*point{}}
	for line := range bytes.Lines(head) {
		line = bytes.TrimSpace(line)
		switch {
		case len(line) == 0 || line[0] == '#':
		case !quoted(line) && r.line(nothing{}, 0, line) == "":
			points++
		case points == 0:
			return false
		default:
			others++
		}
		if points+others == linesToSee {
			break
		}
	}
	return points > others
}

// nothing takes values and does nothing.
type nothing struct{}

func (nothing) Value(Value)                  {}
func (nothing) Leave(string, string)         {}
func (nothing) Reject(int64, []byte, string) {}
