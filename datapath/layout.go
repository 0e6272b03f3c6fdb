package datapath

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"golang.org/x/sys/unix"
)

// lastingDir has the tables that no layout replaces.
const lastingDir = "lasting"

// meaning is raised when rows of the same shape come to mean something else.
const meaning = 1

// layoutOf names the shape of the tables: an agent with another one makes its
// own beside them and switches, instead of reading rows wrongly.
func layoutOf(spec *ebpf.CollectionSpec) string {
	h := sha256.New()
	fmt.Fprintln(h, "meaning", meaning)
	for _, name := range slices.Sorted(maps.Keys(spec.Maps)) {
		m := spec.Maps[name]
		fmt.Fprintln(h, name, m.Type, m.KeySize, m.ValueSize, m.Flags, name == "sessions" || m.MaxEntries > 0)
		describe(h, m.Key, 0)
		describe(h, m.Value, 0)
	}
	return "layout-" + hex.EncodeToString(h.Sum(nil)[:4])
}

func describe(w io.Writer, t btf.Type, depth int) {
	if t == nil || depth > 8 {
		return
	}
	fmt.Fprintln(w, depth, t.TypeName())
	switch t := t.(type) {
	case *btf.Struct:
		for _, m := range t.Members {
			fmt.Fprintln(w, m.Name, m.Offset)
			describe(w, m.Type, depth+1)
		}
	case *btf.Union:
		for _, m := range t.Members {
			fmt.Fprintln(w, m.Name, m.Offset)
			describe(w, m.Type, depth+1)
		}
	case *btf.Array:
		fmt.Fprintln(w, t.Nelems)
		describe(w, t.Type, depth+1)
	case *btf.Typedef:
		describe(w, t.Type, depth+1)
	}
}

// mountBPF makes the directory a BPF file system unless it is one.
func mountBPF(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make the directory for pins: %w", err)
	}
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil {
		return fmt.Errorf("look at %s: %w", dir, err)
	}
	if fs.Type == unix.BPF_FS_MAGIC {
		return nil
	}
	if err := unix.Mount("bpf", dir, "bpf", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "mode=0700"); err != nil {
		return fmt.Errorf("mount a BPF file system on %s: %w", dir, err)
	}
	return nil
}

// dropOldLayouts removes the tables of agents before this one.
func (d *Datapath) dropOldLayouts() error {
	entries, err := os.ReadDir(d.cfg.dir())
	if err != nil {
		return err
	}
	var errs []error
	for _, e := range entries {
		if e.IsDir() && e.Name() != d.layout && e.Name() != "links" && e.Name() != lastingDir {
			errs = append(errs, os.RemoveAll(filepath.Join(d.cfg.dir(), e.Name())))
		}
	}
	return errors.Join(errs...)
}
