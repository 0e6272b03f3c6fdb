package node

import (
	"os"
	"path/filepath"
	"reflect"
	"testing"
	"time"

	"pgregory.net/rapid"

	"moire.dev/moire/snapshot"
)

func stored() *attachment {
	return &attachment{
		Key: webKey, Account: "default", Labels: []snapshot.Label{{Key: "app", Value: "web"}},
		Netns: "/run/netns/x", IfName: "eth0", Host: "mo0123456789ab", PID: 7, Born: 99, Persist: true,
		Since: time.Unix(1, 2).UTC(), Answered: true, VNI: 100, MAC: snapshot.MAC{2, 0, 3, 0, 0, 1},
	}
}

func TestDiskCutAnywhere(t *testing.T) {
	d, err := openDisk(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if err := d.save(stored()); err != nil {
		t.Fatal(err)
	}
	path := d.path(webKey)
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for n := range len(whole) - 1 { // without its last line end it is still whole
		if err := os.WriteFile(path, whole[:n], 0o600); err != nil {
			t.Fatal(err)
		}
		if a, err := readAttachment(path); err == nil {
			t.Fatalf("cut after %d of %d bytes it gives %+v", n, len(whole), a)
		}
	}
	if err := os.WriteFile(path, whole, 0o600); err != nil {
		t.Fatal(err)
	}
	all, err := d.load()
	if err != nil || len(all) != 1 || !reflect.DeepEqual(all[0], stored()) {
		t.Errorf("%+v, %v", all, err)
	}
}

func TestDiskAgainstAMap(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		dir, err := os.MkdirTemp("", "moire-node-disk")
		if err != nil {
			rt.Fatal(err)
		}
		defer os.RemoveAll(dir)
		d, err := openDisk(dir)
		if err != nil {
			rt.Fatal(err)
		}
		// Dots and dashes: no two keys may share a file.
		part := rapid.SampledFrom([]string{"a", "a.b", "a-b", "b", "b.a"})
		model := map[snapshot.AttachmentKey]string{}
		for range rapid.IntRange(1, 10).Draw(rt, "steps") {
			k := snapshot.AttachmentKey{Project: part.Draw(rt, "p"), Workload: part.Draw(rt, "w"), Network: part.Draw(rt, "n")}
			if rapid.Bool().Draw(rt, "remove") {
				delete(model, k)
				if err := d.remove(k); err != nil {
					rt.Fatal(err)
				}
				continue
			}
			a := stored()
			a.Key, a.Netns = k, rapid.StringMatching(`/[a-z]{1,5}`).Draw(rt, "netns")
			model[k] = a.Netns
			if err := d.save(a); err != nil {
				rt.Fatal(err)
			}
			os.WriteFile(filepath.Join(d.dir, "x.new"), []byte("cut"), 0o600)
		}
		all, err := d.load()
		if err != nil || len(all) != len(model) {
			rt.Fatalf("%d attachments, want %d: %v", len(all), len(model), err)
		}
		for _, a := range all {
			if model[a.Key] != a.Netns {
				rt.Fatalf("%+v, want %s", a, model[a.Key])
			}
		}
	})
}

func FuzzReadAttachment(f *testing.F) {
	f.Add([]byte("{}\n44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a\n"))
	f.Add([]byte("\n\n"))
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, b []byte) {
		path := filepath.Join(dir, "x")
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		if a, err := readAttachment(path); err == nil && (a.Key.Project == "" || a.Host == "") {
			t.Errorf("%q gives %+v", b, a)
		}
	})
}
