package main

import (
	_ "embed"
	"io"
	"text/template"
)

//go:embed sketch.ino.tmpl
var sketchText string

// writeSketch writes a complete Arduino sketch for an ESP32 that sends a reading to c with its credentials.
func writeSketch(w io.Writer, c credentials) error {
	sketch, err := template.New("sketch").Parse(sketchText)
	if err != nil {
		return err
	}
	return sketch.Execute(w, c)
}
