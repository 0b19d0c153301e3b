// licences names the licence of each Go module that a program is linked from, which the program itself lists, and of Go's
// own library.
//
//	licences PROGRAM TEXTS
//
// It prints a JSON array of {name, version, licence}, where licence is an SPDX expression, and writes the texts of the
// licences to the file TEXTS, each once under the modules that it is of. The modules come from the module cache or the
// module proxy; one whose sum is not the one that the program was linked with is refused. A module without a licence that
// is known is an error: somebody has to look.
package main

import (
	"bytes"
	"debug/buildinfo"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/google/licensecheck"
)

// linked is a part of the program, and its folder.
type linked struct {
	Name    string `json:"name"`
	Version string `json:"version"`
	Licence string `json:"licence"`
	folder  string
}

// Below this share of a file in percent, a text that is known may stand beside one that is not.
const known = 75

var licenceFile = regexp.MustCompile(`(?i)^(licen[cs]e|copying|notice|unlicense|patents)([.-].*)?$`)

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: licences PROGRAM TEXTS")
		os.Exit(2)
	}
	if err := run(os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, "licences:", err)
		os.Exit(1)
	}
}

func run(program, texts string) error {
	info, err := buildinfo.ReadFile(program)
	if err != nil {
		return err
	}
	parts, err := modules(info)
	if err != nil {
		return err
	}
	// Go's licence is one for all its versions.
	root, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		return fmt.Errorf("go env GOROOT: %w", err)
	}
	version := strings.TrimPrefix(info.GoVersion, "go")
	parts = append(parts, linked{Name: "std", Version: version, folder: strings.TrimSpace(string(root))})
	of := map[string][]string{}
	for i := range parts {
		if err := parts[i].read(of); err != nil {
			return fmt.Errorf("%s %s: %w", parts[i].Name, parts[i].Version, err)
		}
	}
	if err := os.WriteFile(texts, page(of), 0o644); err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(parts)
}

// modules gets the program's own module and all that it depends on.
func modules(info *buildinfo.BuildInfo) ([]linked, error) {
	sums := map[string]string{info.Main.Path + "@" + info.Main.Version: info.Main.Sum}
	for _, module := range info.Deps {
		if module.Replace != nil {
			module = module.Replace
		}
		sums[module.Path+"@"+module.Version] = module.Sum
	}
	names := slices.Sorted(maps.Keys(sums))
	get := exec.Command("go", append([]string{"mod", "download", "-json"}, names...)...)
	// Outside of any module, so that no go.mod has a say.
	get.Dir = os.TempDir()
	get.Env = append(os.Environ(), "GOWORK=off", "GOFLAGS=-mod=mod")
	printed, failure := get.Output()
	var parts []linked
	for decoder := json.NewDecoder(bytes.NewReader(printed)); decoder.More(); {
		var module struct{ Path, Version, Dir, Sum, Error string }
		if err := decoder.Decode(&module); err != nil {
			return nil, err
		}
		name := module.Path + "@" + module.Version
		if module.Error != "" {
			return nil, fmt.Errorf("%s: %s", name, module.Error)
		}
		// The program's own module has no sum when it was built from a checkout.
		if sum := sums[name]; sum != "" && sum != module.Sum {
			return nil, fmt.Errorf("%s has sum %s, the program was linked with %s", name, module.Sum, sum)
		}
		parts = append(parts, linked{Name: module.Path, Version: module.Version, folder: module.Dir})
	}
	if failure != nil {
		return nil, fmt.Errorf("go mod download: %w", failure)
	}
	return parts, nil
}

// read finds the licence, and adds the texts of all licence files to `of`.
func (part *linked) read(of map[string][]string) error {
	var found []string
	title := part.Name + " " + part.Version
	err := filepath.WalkDir(part.folder, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		top := filepath.Dir(path) == part.folder
		if entry.IsDir() {
			// Of the toolchain, only the library's licence; elsewhere, what tests read is not linked.
			if path != part.folder && (part.Name == "std" || entry.Name() == "testdata") {
				return fs.SkipDir
			}
			return nil
		}
		if !entry.Type().IsRegular() || !licenceFile.MatchString(entry.Name()) || strings.HasSuffix(entry.Name(), ".go") {
			return nil
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if key := strings.TrimSpace(string(text)); !slices.Contains(of[key], title) {
			of[key] = append(of[key], title)
		}
		// A grant of patents is no licence that SPDX has a name for.
		if cover := licensecheck.Scan(text); top && cover.Percent >= known && entry.Name() != "PATENTS" {
			for _, match := range cover.Match {
				found = append(found, match.ID)
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	slices.Sort(found)
	if found = slices.Compact(found); len(found) == 0 {
		return errors.New("no licence that is known")
	}
	part.Licence = strings.Join(found, " AND ")
	return nil
}

// page has every text once, under whose it is.
func page(of map[string][]string) []byte {
	texts := slices.Collect(maps.Keys(of))
	slices.SortFunc(texts, func(a, b string) int {
		return strings.Compare(of[a][0]+a, of[b][0]+b)
	})
	var page bytes.Buffer
	page.WriteString("The licences of what helm is linked from.\n")
	for _, text := range texts {
		fmt.Fprintf(&page, "\n%s\n%s\n\n%s\n", strings.Repeat("=", 80), strings.Join(of[text], "\n"), text)
	}
	return page.Bytes()
}
