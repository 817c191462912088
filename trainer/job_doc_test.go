package trainer

import (
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// docs/job.md has a row for every field of a job that does not depend on what the model or the data is.
func TestEveryFieldOfAJobIsDocumented(t *testing.T) {
	b, err := os.ReadFile("../docs/job.md")
	if err != nil {
		t.Fatal(err)
	}
	rows := strings.Split(string(b), "\n")
	documented := func(section, field string) bool {
		return slices.ContainsFunc(rows, func(row string) bool {
			name, _, _ := strings.Cut(strings.TrimPrefix(row, "| "), " | ")
			return strings.HasPrefix(name, "`"+section) && (strings.Contains(name, "`"+section+field+"`") || strings.Contains(name, "`"+field+"`"))
		})
	}
	var walk func(section string, of reflect.Type)
	walk = func(section string, of reflect.Type) {
		for _, f := range reflect.VisibleFields(of) {
			name, _, _ := strings.Cut(f.Tag.Get("yaml"), ",")
			switch {
			case name == "" || name == "-":
			case f.Type.Kind() == reflect.Struct && f.Type.PkgPath() == of.PkgPath() && f.Type != reflect.TypeFor[Model]():
				walk(section+name+".", f.Type)
			case f.Type.Kind() == reflect.Struct || f.Type.Kind() == reflect.Map: // documented with models and data
			case !documented(section, name):
				t.Errorf("docs/job.md has no row for %s%s", section, name)
			}
		}
	}
	walk("", reflect.TypeFor[Job]())
}
