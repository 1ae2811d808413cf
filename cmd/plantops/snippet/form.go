package snippet

import (
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"strconv"
	"strings"
)

// A form is a text with {{Name}} or {{function Name}} where a value belongs. What stands between the lines {{if Name}} and {{end}}
// is left out where the value is empty.
//
// It is no template of text/template: that calls methods by their names, so the linker keeps every method that a name could mean,
// and the program would be two megabytes larger, most of them in the memory of serve.

// functions write a value as the language of a form has it.
var functions = map[string]func(string) string{
	"": func(value string) string { return value }, "quote": strconv.Quote, "python": strconv.QuoteToASCII, "json": jsonText,
	"shell": shellText, "comment": comment, "yamlBlock": yamlBlock, "pythonDER": pythonDER,
}

// values are what the forms are filled in with, by name.
func (f Facts) values() map[string]string {
	values := map[string]string{"Device": f.Device, "Password": f.Password, "Host": f.Host, "Port": strconv.Itoa(f.Port), "Topic": f.Topic,
		"CA": f.CA, "CAOption": "", "NoTLS": "", "HostName": f.HostName(), "Prefix": f.Prefix(), "TasmotaRSA": "", "TasmotaECDSA": ""}
	if !f.TLS() {
		values["NoTLS"] = "true"
		return values
	}
	values["CAOption"] = " --cafile plantops-ca.crt"
	keys, _ := f.Tasmota() // Check has told those who need it what is wrong
	if values["TasmotaRSA"] = keys.RSA; keys.RSA == "" {
		values["TasmotaECDSA"] = keys.ECDSA
	}
	return values
}

// fill fills in a form.
func fill(form string, values map[string]string) (string, error) {
	var out strings.Builder
	shown := true
	for line := range strings.Lines(form) {
		bare := strings.TrimSuffix(line, "\n")
		condition, begins := strings.CutPrefix(bare, "{{if ")
		switch {
		case begins:
			value, known := values[strings.TrimSuffix(condition, "}}")]
			if !known {
				return "", fmt.Errorf("a form has a condition that is not known: %s", bare)
			}
			shown = value != ""
		case bare == "{{end}}":
			shown = true
		case shown:
			if err := fillLine(&out, line, values); err != nil {
				return "", err
			}
		}
	}
	return out.String(), nil
}

func fillLine(out *strings.Builder, line string, values map[string]string) error {
	for {
		before, rest, found := strings.Cut(line, "{{")
		out.WriteString(before)
		if !found {
			return nil
		}
		field, after, ends := strings.Cut(rest, "}}")
		write, name := functions[""], field
		if function, of, found := strings.Cut(field, " "); found {
			write, name = functions[function], of
		}
		value, known := values[name]
		if !ends || !known || write == nil {
			return fmt.Errorf("a form has a field that is not known: {{%s}}", field)
		}
		out.WriteString(write(value))
		line = after
	}
}

// jsonText is a JSON string, which YAML takes too.
func jsonText(s string) string {
	var out strings.Builder
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	_ = enc.Encode(s) // a string can be written
	return strings.TrimSuffix(out.String(), "\n")
}

// shellText is one word of a POSIX shell.
func shellText(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

// comment keeps text from ending the comment that it stands in, or from going on with the next line.
func comment(s string) string {
	return strings.NewReplacer("\n", " ", "\r", " ", `\`, "/", "*/", "* /").Replace(s)
}

// yamlBlock is text below a key of the second level.
func yamlBlock(text string) string {
	const space = "    "
	return space + strings.ReplaceAll(strings.TrimSuffix(text, "\n"), "\n", "\n"+space)
}

// pythonDER are certificates in PEM as strings of Python, each in Base64 without line breaks and on a line of its own.
func pythonDER(certificates string) string {
	var lines []string
	for rest := []byte(certificates); ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			return strings.Join(lines, "\n")
		}
		lines = append(lines, `    "`+base64.StdEncoding.EncodeToString(block.Bytes)+`",`)
	}
}
