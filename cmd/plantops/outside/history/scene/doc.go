// Package scene is the clients of a house that do everything at once to a broker, of any make, that may be killed meanwhile:
// they publish, subscribe, come and go, take over and die, and keep to the rules of MQTT. What they see goes into a history.
package scene
