package snippet

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"
)

// nodeREDReading is the body of the function node. A sensor that is broken (NaN) becomes null by itself in JSON.
const nodeREDReading = `msg.payload = {
    timestamp: Date.now(),
    temperature: 21.5,  // from msg.payload of your sensor's node, wired in here
};
return msg;`

// nodeRED writes a flow: every minute a reading, over TLS, with QoS 1. Credentials stand in the field from which the editor's import
// and the admin API take them; Node-RED stores them encrypted.
func nodeRED(f Facts) (string, error) {
	id := func(part string) string {
		sum := sha256.Sum256([]byte(part + "\x00" + f.Device))
		return hex.EncodeToString(sum[:8])
	}
	type node map[string]any
	broker := node{
		"id": id("broker"), "type": "mqtt-broker", "name": "PlantOps as " + f.Device, "broker": f.Host, "port": fmt.Sprint(f.Port),
		"clientid": f.Device, "autoConnect": true, "usetls": f.TLS(), "protocolVersion": "4", "keepalive": "60", "cleansession": true,
		"autoUnsubscribe": true, "birthTopic": "", "closeTopic": "", "willTopic": "",
		"credentials": node{"user": f.Device, "password": f.Password},
	}
	flow := []node{
		{"id": id("tab"), "type": "tab", "label": "PlantOps device " + f.Device, "disabled": false,
			"info": "A reading every minute. QoS 1: Node-RED sends it again until PlantOps has it on disk."},
		{"id": id("inject"), "type": "inject", "z": id("tab"), "name": "every minute", "props": []node{{"p": "payload"}}, "repeat": "60",
			"crontab": "", "once": true, "onceDelay": "1", "topic": "", "payload": "", "payloadType": "date", "x": 130, "y": 80,
			"wires": [][]string{{id("function")}}},
		{"id": id("function"), "type": "function", "z": id("tab"), "name": "reading", "func": nodeREDReading, "outputs": 1, "timeout": 0,
			"noerr": 0, "initialize": "", "finalize": "", "libs": []any{}, "x": 300, "y": 80, "wires": [][]string{{id("out")}}},
		{"id": id("out"), "type": "mqtt out", "z": id("tab"), "name": f.Topic, "topic": f.Topic, "qos": "1", "retain": "false",
			"respTopic": "", "contentType": "", "userProps": "", "correl": "", "expiry": "", "broker": id("broker"), "x": 500, "y": 80,
			"wires": [][]string{}},
		broker,
	}
	if f.TLS() {
		broker["tls"] = id("tls")
		flow = append(flow, node{"id": id("tls"), "type": "tls-config", "name": "PlantOps CA", "cert": "", "key": "", "ca": "", "certname": "",
			"keyname": "", "caname": "plantops-ca.crt", "servername": "", "verifyservercert": true, "alpnprotocol": "",
			"credentials": node{"certdata": "", "keydata": "", "cadata": f.CA}})
	}
	var out strings.Builder
	enc := json.NewEncoder(&out)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	err := enc.Encode(flow)
	return out.String(), err
}
