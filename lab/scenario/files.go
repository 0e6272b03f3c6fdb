package scenario

import (
	"embed"
	"io/fs"
)

//go:embed *.txtar
var files embed.FS

// Files are the scenarios of the house, for Read.
func Files() fs.FS { return files }
