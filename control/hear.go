package control

import (
	"context"
	"strings"
	"time"
)

// reachedAt says where others reach our API.
func (k *keeper) reachedAt(url string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.url = url
}

// others are the other processes that live, with where their API is.
func (k *keeper) others() map[string]string {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.urls
}

// heard is what we last heard of another process.
type heard struct {
	beat string
	at   time.Time
	live bool
}

// hear reads the beats of others and, when one changed, what they changed.
func (k *keeper) hear(ctx context.Context, others map[string]heard) error {
	rows, err := k.rows.List(ctx, beatPrefix)
	if err != nil {
		return err
	}
	now := k.now()
	// While nobody could be heard, nobody was silent.
	if gap := now.Sub(k.heard); !k.heard.IsZero() && gap > 2*listen {
		for name, h := range others {
			h.at = h.at.Add(gap)
			others[name] = h
		}
	}
	k.heard = now
	changed := false
	alive, urls := map[string]bool{k.self: true}, map[string]string{}
	for key, value := range rows {
		name := strings.TrimPrefix(key, beatPrefix)
		if name == k.self {
			continue
		}
		h, known := others[name]
		switch {
		case !known:
			// Whether it lives shows when it beats again.
			h = heard{beat: string(value), at: now.Add(-deadAfter + 2*beatEvery), live: true}
			changed = true
		case h.beat != string(value):
			h.beat, h.at, h.live = string(value), now, true
			changed = true
		case h.live && now.Sub(h.at) > deadAfter:
			h.live = false
			changed = true
		}
		alive[name] = h.live
		others[name] = h
		if words := strings.Fields(h.beat); h.live && len(words) == 3 {
			urls[name] = words[2]
		}
	}
	k.mu.Lock()
	k.urls = urls
	k.mu.Unlock()
	for name, h := range others {
		if !h.live && now.Sub(h.at) > forgetAfter {
			if _, err := k.rows.Commit(ctx, nil, map[string][]byte{beatPrefix + name: nil}); err != nil {
				return err
			}
		}
		if _, there := rows[beatPrefix+name]; !there {
			delete(others, name)
		}
	}
	if !changed {
		return nil
	}
	with := false
	for _, h := range others {
		with = with || h.live
	}
	k.world.share(with)
	if err := k.loadAllocations(ctx); err != nil {
		return err
	}
	if err := k.loadNames(ctx); err != nil {
		return err
	}
	if err := k.loadKeySets(ctx); err != nil {
		return err
	}
	return k.loadWorld(ctx, alive)
}
