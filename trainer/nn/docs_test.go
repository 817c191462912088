package nn

import (
	"os"
	"reflect"
	"strings"
	"testing"
)

// docs/models.md names every model, every layer, and every option.
func TestModelsAreDocumented(t *testing.T) {
	b, err := os.ReadFile("../../docs/models.md")
	if err != nil {
		t.Fatal(err)
	}
	byName, asList, _ := strings.Cut(string(b), "\n## As a list")
	row := func(part, name string) string {
		for l := range strings.Lines(part) {
			if cell, _, _ := strings.Cut(strings.TrimPrefix(l, "| "), " |"); strings.HasPrefix(l, "| ") && strings.Contains(cell, "`"+name+"`") {
				return l
			}
		}
		t.Errorf("there is no row for %s", name)
		return ""
	}
	for name, m := range models {
		text := row(byName, name)
		for _, o := range m.options {
			if !strings.Contains(text, "`"+o) {
				t.Errorf("option %s of %s is missing", o, name)
			}
		}
	}
	for _, l := range kinds {
		text := row(asList, l.kind())
		for _, f := range fieldsOf(reflect.TypeOf(l)) {
			if f.name != "name" && !strings.Contains(text, "`"+f.name) {
				t.Errorf("option %s of %s is missing", f.name, l.kind())
			}
		}
	}
}
