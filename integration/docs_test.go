package integration

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

var (
	testName = regexp.MustCompile("`(Test[A-Za-z0-9_]+)`")
	testFunc = regexp.MustCompile(`(?m)^func (Test[A-Za-z0-9_]+)\(`)
	roomName = regexp.MustCompile("^(?:`([a-z/]+)`|(interop))[: ]")
)

// TestNamedTests: every test that ARCHITECTURE.md names is in the room that it says,
// and every row of its table of peers names one.
func TestNamedTests(t *testing.T) {
	text, err := os.ReadFile("../ARCHITECTURE.md")
	must(t, err)
	tests := make(map[string][]string) // by room
	named := 0
	for _, line := range strings.Split(string(text), "\n") {
		cells := strings.Split(strings.Trim(line, "| "), " | ")
		for _, room := range strings.Split(cells[len(cells)-1], "; ") {
			in := "integration"
			if m := roomName.FindStringSubmatch(strings.TrimSpace(room)); m != nil {
				in = map[bool]string{true: m[1], false: "integration/interop"}[m[2] == ""]
			}
			for _, m := range testName.FindAllStringSubmatch(room, -1) {
				if named++; tests[in] == nil {
					tests[in] = testsIn(t, in)
				}
				if !slices.Contains(tests[in], m[1]) {
					t.Errorf("%s has no %s, which ARCHITECTURE.md names", in, m[1])
				}
			}
		}
	}
	if named < 40 {
		t.Errorf("only %d tests are named", named)
	}
	_, table, _ := strings.Cut(string(text), "## Who trades with whom")
	table, _, _ = strings.Cut(table, "\n## ")
	rows := 0
	for _, line := range strings.Split(table, "\n")[1:] {
		if !strings.HasPrefix(line, "| ") || strings.HasPrefix(line, "| peer ") || strings.HasPrefix(line, "| --- ") {
			continue
		}
		if rows++; !testName.MatchString(line) {
			t.Errorf("no test is named for %s", line)
		}
	}
	if rows < 10 {
		t.Errorf("the table of peers has %d rows", rows)
	}
}

// testsIn lists the tests of a room.
func testsIn(t *testing.T, room string) (names []string) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join("..", room, "*_test.go"))
	must(t, err)
	for _, file := range files {
		text, err := os.ReadFile(file)
		must(t, err)
		for _, m := range testFunc.FindAllStringSubmatch(string(text), -1) {
			names = append(names, m[1])
		}
	}
	return names
}
