// Command comments checks that every exported name of this module has a comment that starts with it.
package main

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

func main() {
	missing, err := check(".")
	for _, m := range missing {
		fmt.Fprintln(os.Stderr, "comments:", m)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "comments:", err)
	}
	if err != nil || len(missing) > 0 {
		os.Exit(1)
	}
}

// check returns a line for every exported name below root, outside tests, that lacks its comment.
func check(root string) (missing []string, err error) {
	files := token.NewFileSet()
	err = filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && path != root && (strings.HasPrefix(entry.Name(), ".") || entry.Name() == "testdata"):
			return filepath.SkipDir
		case entry.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go"):
			return nil
		}
		file, err := parser.ParseFile(files, path, nil, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		for _, name := range uncommented(file) {
			missing = append(missing, fmt.Sprintf("%s: %s has no comment that starts with its name",
				files.Position(name.Pos()), name))
		}
		return nil
	})
	return missing, err
}

// uncommented lists the exported names of a file that lack their comment.
func uncommented(file *ast.File) (names []*ast.Ident) {
	want := func(name *ast.Ident, comments ...*ast.CommentGroup) {
		if !name.IsExported() {
			return
		}
		for _, c := range comments {
			if first, _, _ := strings.Cut(c.Text(), " "); strings.TrimRight(first, ".,:;\n") == name.Name {
				return
			}
		}
		names = append(names, name)
	}
	for _, d := range file.Decls {
		switch d := d.(type) {
		case *ast.FuncDecl:
			if d.Recv == nil || ast.IsExported(receiver(d)) && !conventional[d.Name.Name] {
				want(d.Name, d.Doc)
			}
		case *ast.GenDecl:
			for _, s := range d.Specs {
				switch s := s.(type) {
				case *ast.TypeSpec:
					want(s.Name, s.Doc, d.Doc)
				case *ast.ValueSpec:
					// a group has one comment, or each of its names one
					if d.Lparen.IsValid() && (d.Doc != nil || s.Doc != nil || s.Comment != nil) {
						continue
					}
					for _, name := range s.Names {
						want(name, s.Doc, d.Doc)
					}
				}
			}
		}
	}
	return names
}

// conventional are methods that do what the interface asks that they are known by.
var conventional = map[string]bool{
	"Error": true, "Unwrap": true, "Is": true, "String": true, "Set": true, "Read": true, "Write": true,
	"MarshalJSON": true, "UnmarshalJSON": true, "MarshalText": true, "UnmarshalText": true,
}

// receiver is the name of a method's type.
func receiver(d *ast.FuncDecl) string {
	t := d.Recv.List[0].Type
	for {
		switch x := t.(type) {
		case *ast.StarExpr:
			t = x.X
		case *ast.IndexExpr:
			t = x.X
		case *ast.IndexListExpr:
			t = x.X
		case *ast.Ident:
			return x.Name
		default:
			return ""
		}
	}
}
