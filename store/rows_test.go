package store

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func TestRows(t *testing.T) {
	rows, ctx := shared.store.Rows(), t.Context()
	if v, rev, err := rows.Get(ctx, "test/none"); v != nil || rev != 0 || err != nil {
		t.Errorf("a row that is not there: %q %d %v", v, rev, err)
	}
	commit := func(want bool, expect map[string]int64, put map[string][]byte) {
		t.Helper()
		ok, err := rows.Commit(ctx, expect, put)
		if err != nil || ok != want {
			t.Fatalf("commit of %v if %v: %v %v, want %v", put, expect, ok, err, want)
		}
	}
	commit(true, map[string]int64{"test/a": 0}, map[string][]byte{"test/a": []byte("1"), "test/b": {}})
	commit(false, map[string]int64{"test/a": 0}, map[string][]byte{"test/a": []byte("2")})
	v, rev, err := rows.Get(ctx, "test/a")
	if string(v) != "1" || rev == 0 || err != nil {
		t.Fatalf("after a commit: %q %d %v", v, rev, err)
	}
	commit(false, map[string]int64{"test/a": rev, "test/b": 0}, map[string][]byte{"test/a": nil})
	commit(true, map[string]int64{"test/a": rev}, map[string][]byte{"test/a": nil, "test/c": []byte("3")})
	list, err := rows.List(ctx, "test/")
	if err != nil || len(list) != 2 || string(list["test/c"]) != "3" || list["test/b"] == nil && len(list["test/b"]) != 0 {
		t.Errorf("list: %q %v", list, err)
	}
	if list, err := rows.List(ctx, "tes"); err != nil || len(list) != 2 {
		t.Errorf("a prefix need not end at a slash: %q %v", list, err)
	}
	many := map[string][]byte{}
	for i := range maxRowChanges + 1 {
		many[fmt.Sprint("test/many/", i)] = []byte("x")
	}
	if _, err := rows.Commit(ctx, nil, many); err == nil || !strings.Contains(err.Error(), "at most 128") {
		t.Errorf("a commit that is too large: %v", err)
	}
}

// TestRowsPages lists more rows than fit into one page, all of one moment.
func TestRowsPages(t *testing.T) {
	rows, ctx := shared.store.Rows(), t.Context()
	const total = 2*rowPage + 7
	for i := 0; i < total; i += 100 {
		put := map[string][]byte{}
		for j := i; j < min(i+100, total); j++ {
			put[fmt.Sprintf("pages/%05d", j)] = []byte("x")
		}
		if ok, err := rows.Commit(ctx, nil, put); err != nil || !ok {
			t.Fatal(ok, err)
		}
	}
	if list, err := rows.List(ctx, "pages/"); err != nil || len(list) != total {
		t.Errorf("%d rows, want %d; %v", len(list), total, err)
	}
}

// TestRowsOneWinner: of many who were sure that a row is absent, one is right.
func TestRowsOneWinner(t *testing.T) {
	var winners atomic.Int32
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			ok, err := shared.store.Rows().Commit(t.Context(), map[string]int64{"race": 0}, map[string][]byte{"race": []byte("me")})
			if err != nil {
				t.Error(err)
			}
			if ok {
				winners.Add(1)
			}
		})
	}
	wg.Wait()
	if n := winners.Load(); n != 1 {
		t.Errorf("%d winners", n)
	}
}

func TestRowsBeforeAndAfter(t *testing.T) {
	r := newRows()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if _, _, err := r.Get(ctx, "x"); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "not up yet") {
		t.Errorf("before the database is up: %v", err)
	}
	close(r.opened)
	close(r.closed)
	if _, err := r.List(t.Context(), "x"); !errors.Is(err, ErrClosed) {
		t.Errorf("after the store has stopped: %v", err)
	}
}
