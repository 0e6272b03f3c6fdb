package keep

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Options of a Keeper; all but the times are needed.
type Options struct {
	// Name for people.
	Name string
	// Path of the program, and its arguments.
	Path string
	Args []string
	// Cgroup of its own: a directory, made when it is not there.
	Cgroup string
	// Log is the file that it writes to.
	Log string
	// Serving is the process that serves now; 0: none.
	Serving func() int
	Logger  *slog.Logger
	// Patience with a process that does not serve, before it is ended by force;
	// default 10s. One that has never served gets three times as much.
	Patience time.Duration
	// Drain is how long one that was asked to end may take; default 40s.
	Drain time.Duration
}

// Rhythms of a Keeper.
const (
	look       = 200 * time.Millisecond
	firstPause = 100 * time.Millisecond // before it is started again
	lastPause  = 10 * time.Second
	healthy    = 10 * time.Second // who lived that long is started again at once
	// settled is how long the file of a program must have been as it is: who
	// installs it may not be done.
	settled = 2 * time.Second
	// firstDelay and lastDelay before a program that did not come to serve is
	// tried again, while the old one does.
	firstDelay = 10 * time.Second
	lastDelay  = 5 * time.Minute
)

// Keeper keeps one program running.
type Keeper struct {
	o Options

	mu     sync.Mutex
	status Status
	wake   chan struct{} // has room for one
	asks   []chan error  // who waits for a replacement
	ending bool

	// Of Run alone. The last one is the newest.
	all   []*process
	idle  time.Time // since when none of them serves; zero: one does
	begin time.Time // the next start, not before that
	pause time.Duration
	// replacing: the newest process is to stand in the place of the one that serves.
	replacing bool
	delay     time.Duration // after a replacement that failed
	again     time.Time     // not before that
}

// Status of the program.
type Status struct {
	// PID of the newest process; 0: none.
	PID   int
	Since time.Time
	// Starts counts since Run; Last says how the one before ended.
	Starts int
	Last   string
}

// New makes a Keeper. It starts nothing: see Run.
func New(o Options) *Keeper {
	if o.Patience <= 0 {
		o.Patience = 10 * time.Second
	}
	if o.Drain <= 0 {
		o.Drain = 40 * time.Second
	}
	return &Keeper{o: o, wake: make(chan struct{}, 1)}
}

// Status now.
func (k *Keeper) Status() Status {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.status
}

// Replace starts another process in the place of the one that serves, and
// returns when it does.
func (k *Keeper) Replace(ctx context.Context) error {
	done := make(chan error, 1)
	k.mu.Lock()
	k.asks = append(k.asks, done)
	k.mu.Unlock()
	k.rouse()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// End ends the program for good: Run returns when no process of it is left.
func (k *Keeper) End() {
	k.mu.Lock()
	k.ending = true
	k.mu.Unlock()
	k.rouse()
}

func (k *Keeper) rouse() {
	select {
	case k.wake <- struct{}{}:
	default:
	}
}

// Run keeps it until ctx is done, and leaves it running then.
func (k *Keeper) Run(ctx context.Context) error {
	if err := k.takeUp(); err != nil {
		return err
	}
	defer func() {
		for _, p := range k.all {
			p.leave()
		}
	}()
	tick := time.NewTicker(look)
	defer tick.Stop()
	for {
		now := time.Now()
		k.reap(now)
		k.mu.Lock()
		ending := k.ending
		k.mu.Unlock()
		if ending {
			k.stop(now)
		} else {
			k.keep(now)
		}
		k.show()
		if ending && len(k.all) == 0 {
			k.answer(errors.New("it was ended"))
			return remove(k.o.Cgroup)
		}
		var ended chan struct{}
		if p := k.newest(); p != nil {
			ended = p.ended
		}
		select {
		case <-ctx.Done():
			k.answer(ctx.Err())
			return nil
		case <-ended:
		case <-k.wake:
		case <-tick.C:
		}
	}
}

// takeUp finds who is in the cgroup.
func (k *Keeper) takeUp() error {
	pids, err := processesOf(k.o.Cgroup)
	if err != nil {
		return err
	}
	for _, pid := range pids {
		if p, err := adopt(pid); err == nil { // else it has just ended
			k.all = append(k.all, p)
		}
	}
	slices.SortStableFunc(k.all, func(a, b *process) int { return a.since.Compare(b.since) })
	for _, p := range k.all {
		p.since = time.Now() // it is given time to find us
		k.o.Logger.Info("goes on with a process that runs", "program", k.o.Name, "pid", p.pid)
	}
	return nil
}

// reap forgets who has ended.
func (k *Keeper) reap(now time.Time) {
	for i := 0; i < len(k.all); {
		p := k.all[i]
		if !p.dead() {
			i++
			continue
		}
		p.leave()
		k.all = slices.Delete(k.all, i, i+1)
		if !p.asked.IsZero() {
			continue
		}
		why := "it ended by itself"
		if p.why != nil {
			why = p.why.Error()
		}
		k.o.Logger.Error("a process ended", "program", k.o.Name, "pid", p.pid, "why", why, "log", k.o.Log, "said", lastLine(k.o.Log))
		k.mu.Lock()
		k.status.Last = why
		k.mu.Unlock()
		if k.newest() != nil { // another one serves, or is about to
			if !p.served {
				k.failed(now, errors.New(why))
			}
			continue
		}
		if now.Sub(p.since) >= healthy {
			k.pause = 0
		}
		k.begin = now.Add(k.pause)
		k.pause = min(max(2*k.pause, firstPause), lastPause)
	}
}

// keep has one process serve.
func (k *Keeper) keep(now time.Time) {
	newest, serving := k.newest(), k.o.Serving()
	if newest == nil {
		if !now.Before(k.begin) {
			k.start(now)
		}
		return
	}
	for _, p := range k.all {
		if p.pid == serving {
			p.served, k.idle = true, time.Time{}
		}
	}
	if newest.pid == serving {
		k.settle(now)
	}
	if serving == 0 && k.idle.IsZero() {
		k.idle = now
	}
	patience := k.o.Patience
	if !newest.served {
		patience *= 3
	}
	switch {
	case serving != 0 && newest.pid != serving && now.Sub(newest.since) >= patience:
		k.giveUp(newest, now, "it did not come to serve")
	case serving == 0 && now.Sub(k.idle) >= patience && now.Sub(newest.since) >= patience:
		for _, p := range k.all {
			k.giveUp(p, now, "it does not serve any more")
		}
	case newest.pid == serving && (k.asked() || k.changed(newest, now)):
		k.o.Logger.Info("starts a process in the place of another", "program", k.o.Name, "old", newest.pid)
		k.replacing = true
		k.start(now)
	}
}

// newest is the last process that was not asked to end; nil: none.
func (k *Keeper) newest() *process {
	for _, p := range slices.Backward(k.all) {
		if p.asked.IsZero() {
			return p
		}
	}
	return nil
}

// giveUp ends a process by force.
func (k *Keeper) giveUp(p *process, now time.Time, why string) {
	k.o.Logger.Error("ends a process by force", "program", k.o.Name, "pid", p.pid, "why", why)
	p.asked = now
	if err := p.ask(unix.SIGKILL); err != nil {
		k.o.Logger.Error("cannot end it", "error", err)
	}
	k.mu.Lock()
	k.status.Last = why
	k.mu.Unlock()
	k.failed(now, errors.New(why))
}

// failed: another process did not come to serve.
func (k *Keeper) failed(now time.Time, why error) {
	k.delay = min(max(2*k.delay, firstDelay), lastDelay)
	k.again = now.Add(k.delay)
	k.answer(why)
}

// settle: the newest process serves. The older ones were told to drain by who
// hands out the work; here they are only kept from staying for ever.
func (k *Keeper) settle(now time.Time) {
	k.delay, k.again = 0, time.Time{}
	if k.replacing {
		k.answer(nil)
	}
	newest := k.newest()
	for _, p := range k.all {
		if p != newest {
			k.ask(p, now)
		}
	}
}

// ask has a process end, by force when it was asked long ago.
func (k *Keeper) ask(p *process, now time.Time) {
	switch {
	case p.asked.IsZero():
		p.asked = now
		if err := p.ask(unix.SIGTERM); err != nil {
			k.o.Logger.Error("cannot ask a process to end", "program", k.o.Name, "error", err)
		}
	case now.Sub(p.asked) >= k.o.Drain:
		if err := p.ask(unix.SIGKILL); err != nil {
			k.o.Logger.Error("cannot end a process", "program", k.o.Name, "error", err)
		}
	}
}

func (k *Keeper) stop(now time.Time) {
	for _, p := range k.all {
		k.ask(p, now)
	}
}

// start begins another process.
func (k *Keeper) start(now time.Time) {
	p, err := k.o.start()
	if err != nil {
		k.mu.Lock()
		again := k.status.Last == err.Error()
		k.status.Last = err.Error()
		k.mu.Unlock()
		if !again {
			k.o.Logger.Error("cannot start", "program", k.o.Name, "error", err)
		}
		k.pause = min(max(2*k.pause, firstPause), lastPause)
		k.begin = now.Add(k.pause)
		k.failed(now, err)
		return
	}
	k.o.Logger.Info("started", "program", k.o.Name, "pid", p.pid)
	k.all = append(k.all, p)
	k.idle = time.Time{}
	k.mu.Lock()
	k.status.Starts++
	k.mu.Unlock()
}

// asked: somebody wants another process, and none is on its way.
func (k *Keeper) asked() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return len(k.asks) > 0
}

// changed: the file of the program is another one than the process runs.
func (k *Keeper) changed(p *process, now time.Time) bool {
	if now.Before(k.again) {
		return false
	}
	info, err := os.Stat(k.o.Path)
	return err == nil && now.Sub(info.ModTime()) >= settled && !p.runs(k.o.Path)
}

// answer tells who waits for a replacement that began before.
func (k *Keeper) answer(err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.replacing = false
	for _, c := range k.asks {
		c <- err
	}
	k.asks = nil
}

func (k *Keeper) show() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.status.PID, k.status.Since = 0, time.Time{}
	if p := k.newest(); p != nil {
		k.status.PID, k.status.Since = p.pid, p.since
	}
}
