package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const noticesPath = "../../THIRD_PARTY_NOTICES.md"

// THIRD_PARTY_NOTICES.md has the notices of every module that is linked in, as the module brings them: after a change
// of go.mod, `make notices` writes it again.
func TestNoticesOfWhatIsLinkedInAreThere(t *testing.T) {
	want := thirdPartyNotices(t)
	if os.Getenv("PLANTOPS_WRITE_NOTICES") != "" {
		require.NoError(t, os.WriteFile(noticesPath, []byte(want), 0o644))
	}
	got, err := os.ReadFile(noticesPath)
	require.NoError(t, err)
	if string(got) == want {
		return
	}
	have := map[string]bool{}
	for line := range strings.Lines(string(got)) {
		have[line] = true
	}
	for line := range strings.Lines(want) {
		if strings.HasPrefix(line, "| ") {
			assert.True(t, have[line], "missing or of another version: %s", strings.TrimSpace(line))
		}
	}
	assert.Fail(t, "THIRD_PARTY_NOTICES.md is not what is linked in", "write it again with: make notices")
}

// linkedModule is a module with packages in the program.
type linkedModule struct {
	path, version, dir string
	notices            []string // paths of its files, from dir
}

// noticeFile matches the names that licences and notices have in modules; edl-v10 is Eclipse's BSD licence.
var noticeFile = regexp.MustCompile(`^(?i:(licen[cs]e|copying|notice)([-._].*)?|edl-v10)$`)

// leftOut are files that say nothing about what is linked in that is not said by another one.
var leftOut = map[string]string{
	"github.com/eclipse/paho.golang/LICENSE":  "the EPL, which paho can be had under as well",
	"modernc.org/sqlite/LICENSE-3RD-PARTY.md": "a list of other modules, with what only its tests need; what is linked of them is here with its own texts",
	"modernc.org/sqlite/LICENSE-SQLITE_VEC":   "an extension that is not linked",
	"modernc.org/memory/LICENSE-LOGO":         "a picture",
}

// linkedModules asks for every platform that `make cross` builds: they do not link the same.
func linkedModules(t *testing.T) []linkedModule {
	byPath, seen := map[string]*linkedModule{}, map[string]bool{}
	for _, arch := range []string{"amd64", "arm64", "arm"} {
		list := exec.Command("go", "list", "-deps", "-f",
			"{{with .Module}}{{if not .Main}}{{.Path}}\t{{.Version}}\t{{.Dir}}\t{{$.Dir}}{{end}}{{end}}", ".")
		list.Env = append(os.Environ(), "GOOS=linux", "GOARCH="+arch, "CGO_ENABLED=0")
		list.Stderr = os.Stderr
		out, err := list.Output()
		require.NoError(t, err)
		for line := range strings.Lines(string(out)) {
			if strings.TrimSpace(line) == "" {
				continue
			}
			fields := strings.Split(strings.TrimSpace(line), "\t")
			require.Len(t, fields, 4)
			m := byPath[fields[0]]
			if m == nil {
				m = &linkedModule{path: fields[0], version: fields[1], dir: fields[2]}
				byPath[m.path] = m
			}
			// From the package up to the root of its module: a folder that was taken over from elsewhere has a licence of its own.
			for dir := fields[3]; len(dir) >= len(m.dir); dir = filepath.Dir(dir) {
				if seen[dir] {
					break
				}
				seen[dir] = true
				m.addNotices(t, dir)
			}
		}
	}
	var modules []linkedModule
	for _, m := range byPath {
		require.NotEmpty(t, m.notices, "%s has no licence file", m.path)
		slices.Sort(m.notices)
		modules = append(modules, *m)
	}
	slices.SortFunc(modules, func(a, b linkedModule) int { return strings.Compare(a.path, b.path) })
	return modules
}

func (m *linkedModule) addNotices(t *testing.T, dir string) {
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	for _, entry := range entries {
		if !entry.Type().IsRegular() || !noticeFile.MatchString(entry.Name()) || filepath.Ext(entry.Name()) == ".go" {
			continue
		}
		name, err := filepath.Rel(m.dir, filepath.Join(dir, entry.Name()))
		require.NoError(t, err)
		if leftOut[m.path+"/"+name] == "" {
			m.notices = append(m.notices, name)
		}
	}
}

// thirdPartyNotices is the file. A text that several modules have stands in it once.
func thirdPartyNotices(t *testing.T) string {
	const goAuthors = "golang.org/x/sys" // whose licence is, to the letter, that of Go itself
	var out strings.Builder
	out.WriteString(`# Notices of what is linked in

The program ` + "`plantops`" + ` is licensed under the Apache License 2.0, see [LICENSE](LICENSE). It is linked with the standard
library and the runtime of Go, and with the modules below. Their licences and notices follow, word for word.
github.com/eclipse/paho.golang is offered under two licences and used under one of them, the Eclipse Distribution License.

This file is written by ` + "`make notices`" + `; a test compares it with what is linked.

| Module | Version | Texts |
|---|---|---|
`)
	type section struct {
		of   []string
		text string
	}
	var sections []section
	add := func(of string, text []byte) {
		body := string(bytes.TrimSpace(bytes.ReplaceAll(text, []byte("\r\n"), []byte("\n"))))
		i := slices.IndexFunc(sections, func(s section) bool { return s.text == body })
		if i < 0 {
			sections = append(sections, section{text: body})
			i = len(sections) - 1
		}
		sections[i].of = append(sections[i].of, of)
	}
	modules := linkedModules(t)
	require.True(t, slices.ContainsFunc(modules, func(m linkedModule) bool { return m.path == goAuthors }))
	out.WriteString("| Go, standard library and runtime | of the compiler | LICENSE |\n")
	for _, m := range modules {
		fmt.Fprintf(&out, "| %s | %s | %s |\n", m.path, m.version, strings.Join(m.notices, ", "))
		for _, name := range m.notices {
			text, err := os.ReadFile(filepath.Join(m.dir, name))
			require.NoError(t, err)
			if m.path == goAuthors {
				add("Go, standard library and runtime: LICENSE", text)
			}
			add(m.path+": "+name, text)
		}
	}
	for _, s := range sections {
		fence := "```"
		for strings.Contains(s.text, fence) {
			fence += "`"
		}
		fmt.Fprintf(&out, "\n## %s\n\n%stext\n%s\n%s\n", strings.Join(s.of, "; "), fence, s.text, fence)
	}
	return out.String()
}
