// Command moire is the command line of Moiré; see package cli.
package main

import (
	"os"

	"moire.dev/moire/cli"
)

func main() { os.Exit(cli.Main(os.Args[1:], os.Stdin, os.Stdout, os.Stderr)) }
