package cli

import (
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

// fakeMoired and fakeMoireNode stand beside moire in scripts: they take the
// flags of the real ones, say what they do, and make the files by which the
// real ones say that they are ready.

func flagValue(name string) string {
	if i := slices.Index(os.Args, name); i >= 0 && i+1 < len(os.Args) {
		return os.Args[i+1]
	}
	return ""
}

func fakeMoired() {
	fmt.Println("moired", strings.Join(os.Args[1:], " "))
	if len(os.Args) > 1 && os.Args[1] == "token" {
		if slices.Contains(os.Args, "--once") {
			os.Exit(1)
		}
		return
	}
	run := flagValue("--run-dir")
	if os.Getenv("FAKE_BROKEN") == "moired" {
		fmt.Println("the database is locked")
		os.Exit(1)
	}
	config, err := os.ReadFile(os.Getenv("KUBECONFIG"))
	if err != nil || os.WriteFile(filepath.Join(run, "kubeconfig"), config, 0o600) != nil {
		os.Exit(1)
	}
	serveUntilTerm("moired", filepath.Join(run, "join.json"))
}

func fakeMoireNode() {
	switch os.Args[1] {
	case "check":
		if os.Getenv("FAKE_BROKEN") == "moire-node" {
			fmt.Fprintln(os.Stderr, "moire-node: no such flag")
			os.Exit(2)
		}
		ok := os.Getenv("FAKE_KERNEL") == ""
		fmt.Printf(`[{"name":"tcx links","ok":%v,"why":"programs attach to interfaces","fix":"boot Linux 6.6 or later"}]`, ok)
		if !ok {
			os.Exit(1)
		}
	case "cleanup":
		fmt.Println("moire-node", strings.Join(os.Args[1:], " "))
		log, err := os.OpenFile(os.Getenv("FAKE_LOG"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
		if err != nil {
			os.Exit(1)
		}
		fmt.Fprintln(log, "cleanup", flagValue("--name"))
	case "run":
		fmt.Println("moire-node", strings.Join(os.Args[1:], " "))
		serveUntilTerm("moire-node", filepath.Join(flagValue("--run-dir"), flagValue("--name")+".sock"))
	}
}

// serveUntilTerm makes the sign, waits for SIGTERM and writes down its end.
func serveUntilTerm(name, sign string) {
	term := make(chan os.Signal, 1)
	signal.Notify(term, syscall.SIGTERM)
	if err := os.WriteFile(sign, nil, 0o600); err != nil {
		os.Exit(1)
	}
	<-term
	log, err := os.OpenFile(os.Getenv("FAKE_LOG"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		os.Exit(1)
	}
	fmt.Fprintln(log, "ended", name)
	os.Exit(0)
}
