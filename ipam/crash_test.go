package ipam

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"moire.dev/moire/snapshot"
)

// TestPoolCut: a journal that ends at any byte, with or without garbage after
// it, gives exactly what was acknowledged until then.
func TestPoolCut(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "whole")
	p := mustOpen(t, path)
	type promise struct {
		size int64
		held []Held
	}
	promises := []promise{{0, []Held{}}}
	blocks := []snapshot.Block{block(7, "10.0.0.0/29"), block(7, "fd00::/125")}
	for i := range 12 {
		var err error
		switch i % 4 {
		case 0, 1:
			_, err = p.Take(attachment(i), 7, blocks, IPv4|IPv6)
		case 2:
			_, err = p.MAC(attachment(i-1), 3)
		default:
			err = p.Release(attachment(i - 3))
		}
		if err != nil {
			t.Fatal(err)
		}
		promises = append(promises, promise{p.j.size, p.Held()})
	}
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	garbage := [][]byte{nil, {0}, bytes.Repeat([]byte{0}, 5000), []byte("\x00\n"), []byte("\x01\n\n00000000 {}\n"), []byte("ffffffff garbage"), bytes.Repeat([]byte("x"), maxLine+7)}
	cut := filepath.Join(dir, "cut")
	last := 0
	for n := range len(whole) + 1 {
		for last+1 < len(promises) && promises[last+1].size <= int64(n) {
			last++
		}
		tail := garbage[n%len(garbage)]
		if err := os.WriteFile(cut, append(bytes.Clone(whole[:n]), tail...), 0o600); err != nil {
			t.Fatal(err)
		}
		p := mustOpen(t, cut)
		if got := p.Held(); !reflect.DeepEqual(got, promises[last].held) {
			t.Fatalf("cut at byte %d with %q: got %v, want %v", n, tail, got, promises[last].held)
		}
		if _, err := p.Take(attachment(99), 7, []snapshot.Block{block(7, "10.1.0.0/29")}, IPv4); err != nil {
			t.Fatalf("cut at byte %d: cannot go on: %v", n, err)
		}
		want := p.Held()
		if err := p.Close(); err != nil {
			t.Fatal(err)
		}
		p = mustOpen(t, cut)
		if got := p.Held(); !reflect.DeepEqual(got, want) {
			t.Fatalf("cut at byte %d: after going on got %v, want %v", n, got, want)
		}
		if err := p.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestPoolDamage: what was acknowledged and cannot be read any more is never
// guessed.
func TestPoolDamage(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pool")
	p := mustOpen(t, path)
	for i := range 3 {
		if _, err := p.Take(attachment(i), 7, []snapshot.Block{block(7, "10.0.0.0/29")}, IPv4); err != nil {
			t.Fatal(err)
		}
	}
	first := bytes.IndexByte(read(t, path), '\n')
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	whole := read(t, path)
	for i := range first {
		b := bytes.Clone(whole)
		b[i] ^= 0x10
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := OpenPool(path); !errors.Is(err, ErrDamaged) {
			t.Fatalf("byte %d flipped: got %v, want ErrDamaged", i, err)
		}
	}
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestPoolCompaction: the file stays small and says the same, also when a
// compaction was interrupted before.
func TestPoolCompaction(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pool")
	calm := func(path string) (file, error) {
		f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
		return &flaky{f, func() int { return -1 }}, err
	}
	p, err := openPool(path, calm)
	if err != nil {
		t.Fatal(err)
	}
	blocks := []snapshot.Block{block(7, "10.0.0.0/26")}
	for i := range 10_000 {
		if _, err := p.Take(attachment(i), 7, blocks, IPv4); err != nil {
			t.Fatal(err)
		}
		if i >= 5 {
			if err := p.Release(attachment(i - 5)); err != nil {
				t.Fatal(err)
			}
		}
	}
	if p.j.lines > 1400 {
		t.Fatalf("%d lines for 5 attachments", p.j.lines)
	}
	held, entries := p.Held(), p.entries()
	if err := errors.Join(p.Close(), os.WriteFile(path+".new", []byte("half"), 0o600)); err != nil {
		t.Fatal(err)
	}
	p = mustOpen(t, path)
	if !reflect.DeepEqual(p.Held(), held) || !reflect.DeepEqual(p.entries(), entries) {
		t.Fatal("compaction changed what is held")
	}
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestPoolKilled: a process that takes and releases as fast as it can is
// killed again and again; what it was told is true afterwards.
func TestPoolKilled(t *testing.T) {
	if path := os.Getenv("MOIRE_TEST_POOL"); path != "" {
		takeUntilKilled(path)
		return
	}
	path := filepath.Join(t.TempDir(), "pool")
	macs := map[string]string{}
	for range 8 {
		cmd := exec.Command(os.Args[0], "-test.run=^TestPoolKilled$")
		cmd.Env = append(os.Environ(), "MOIRE_TEST_POOL="+path)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		timer := time.AfterFunc(time.Duration(20+rand.IntN(60))*time.Millisecond, func() { _ = cmd.Process.Kill() })
		told := map[string]string{}
		last := ""
		for s := bufio.NewScanner(out); s.Scan(); {
			f := strings.Fields(s.Text())
			switch {
			case len(f) == 2 && f[0] == "gone":
				delete(told, f[1])
				last = f[1]
			case len(f) == 4 && f[0] == "took":
				if o, twice := macs[f[3]]; twice {
					t.Fatalf("%s got MAC %s, which %s had", f[1], f[3], o)
				}
				told[f[1]], macs[f[3]] = f[2]+" "+f[3], f[1]
			case len(f) == 2 && f[0] == "releasing":
				last = f[1]
			}
		}
		_ = cmd.Wait()
		timer.Stop()
		p := mustOpen(t, path)
		now := map[string]string{}
		for _, h := range p.Held() {
			if len(h.Addrs) == 1 {
				now[h.Key.Workload] = h.Addrs[0].String() + " " + h.MAC.String()
			}
		}
		for k, v := range told {
			if now[k] != v && k != last {
				t.Fatalf("%s was told %s, the pool says %q", k, v, now[k])
			}
		}
		for _, h := range p.Held() {
			if err := p.Release(h.Key); err != nil {
				t.Fatal(err)
			}
		}
		if err := p.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func takeUntilKilled(path string) {
	p, err := OpenPool(path)
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	blocks := []snapshot.Block{block(7, "10.0.0.0/26")}
	start := time.Now().UnixNano()
	for i := 0; ; i++ {
		k := attachment(i)
		k.Workload = fmt.Sprintf("w%d-%d", start, i)
		addrs, err := p.Take(k, 7, blocks, IPv4)
		if err != nil {
			os.Exit(1)
		}
		m, err := p.MAC(k, 9)
		if err != nil {
			os.Exit(1)
		}
		fmt.Println("took", k.Workload, addrs[0], m)
		if i >= 20 {
			k.Workload = fmt.Sprintf("w%d-%d", start, i-20)
			fmt.Println("releasing", k.Workload)
			if p.Release(k) != nil {
				os.Exit(1)
			}
			fmt.Println("gone", k.Workload)
		}
	}
}

func FuzzJournal(f *testing.F) {
	line, err := encodeLine(entry{Key: &snapshot.AttachmentKey{Project: "p"}, Addrs: []netip.Addr{netip.MustParseAddr("10.0.0.1")}, Clock: 3})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(line)
	f.Add(append(line, line...))
	f.Add([]byte("00000000 {}\n"))
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, b []byte) {
		path := filepath.Join(dir, "pool")
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		p, err := OpenPool(path)
		if err != nil {
			if !errors.Is(err, ErrDamaged) {
				t.Fatal(err)
			}
			return
		}
		if _, err := p.Take(attachment(1), 7, []snapshot.Block{block(7, "10.0.0.0/20")}, IPv4); err != nil {
			t.Fatal(err)
		}
		if err := p.Close(); err != nil {
			t.Fatal(err)
		}
	})
}

func benchmarkTake(b *testing.B, open func(string) (file, error)) {
	p, err := openPool(filepath.Join(b.TempDir(), "pool"), open)
	if err != nil {
		b.Fatal(err)
	}
	var blocks []snapshot.Block
	for i := range 8 { // 512 addresses, 200 of them in use
		blocks = append(blocks, block(7, fmt.Sprintf("10.0.%d.0/26", i)))
	}
	for i := range 200 {
		if _, err := p.Take(attachment(-i-1), 7, blocks, IPv4); err != nil {
			b.Fatal(err)
		}
	}
	b.ResetTimer()
	for i := range b.N {
		if _, err := p.Take(attachment(i), 7, blocks, IPv4); err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		if err := p.Release(attachment(i)); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
}

// BenchmarkPoolTake is everything but the wait for the disk.
func BenchmarkPoolTake(b *testing.B) {
	benchmarkTake(b, func(path string) (file, error) {
		f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
		return &flaky{f, func() int { return -1 }}, err
	})
}

// BenchmarkPoolTakeFsync waits for the disk too.
func BenchmarkPoolTakeFsync(b *testing.B) { benchmarkTake(b, openFile) }
