package esp32_test

import (
	"io/fs"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/plantops/plantops/deploy/esp32"
)

func TestLibraryIsWholeInTheProgram(t *testing.T) {
	library := esp32.Library()
	require.NoError(t, fstest.TestFS(library, "library.properties", "library.json", "keywords.txt", "README.md",
		"src/PlantOps.h", "src/PlantOps.cpp", "src/plantops/client.cpp", "examples/PlantOpsSensor/PlantOpsSensor.ino"))
	var version string
	for _, name := range []string{"library.properties", "library.json"} {
		text, err := fs.ReadFile(library, name)
		require.NoError(t, err)
		for line := range strings.Lines(string(text)) {
			if key, value, ok := strings.Cut(strings.Trim(line, " ,\n"), "="); ok && key == "version" {
				version = value
			}
		}
		assert.Contains(t, string(text), version, "both say the same version")
	}
	assert.NotEmpty(t, version)
}

// The Arduino IDE wants each sketch in a folder of its name.
func TestSketchesAreWhereTheArduinoIDELooks(t *testing.T) {
	library := esp32.Library()
	sketches, err := fs.Glob(library, "examples/*/*.ino")
	require.NoError(t, err)
	require.NotEmpty(t, sketches)
	for _, path := range sketches {
		parts := strings.Split(path, "/")
		assert.Equal(t, parts[1]+".ino", parts[2])
	}
}
