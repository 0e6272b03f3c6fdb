package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"moire.dev/moire/lab"
)

// result of one path in one round; higher is better except CPU.
type result struct {
	stream float64 // TCP bits per second
	cpu    float64 // busy core-seconds of the whole machine per GB
	trips  float64 // TCP round trips of 1 byte per second
	conns  float64 // TCP connections with one round trip per second
	udp    float64 // UDP round trips per second
}

const span = 2 * time.Second

func measure(ctx context.Context, p path) (result, error) {
	var r result
	stop, err := serve(ctx, p)
	if err != nil {
		return r, err
	}
	defer stop()
	if r.stream, r.cpu, err = stream(ctx, p); err != nil {
		return r, fmt.Errorf("%s: stream: %w", p.name, err)
	}
	for _, kind := range []struct {
		name string
		to   *float64
	}{{"trips", &r.trips}, {"conns", &r.conns}, {"udp", &r.udp}} {
		if *kind.to, err = inside(ctx, p.client, kind.name, p.addr); err != nil {
			return r, fmt.Errorf("%s: %s: %w", p.name, kind.name, err)
		}
	}
	return r, nil
}

// serve starts iperf3 and the echo server in the server's namespace.
func serve(ctx context.Context, p path) (stop func(), err error) {
	var running []*exec.Cmd
	stop = func() {
		for _, c := range running {
			c.Process.Kill()
			c.Wait()
		}
	}
	exe, err := os.Executable()
	if err != nil {
		return stop, err
	}
	ns := "/run/netns/" + p.server
	for _, args := range [][]string{{"iperf3", "-s"}, {"taskset", "-c", "0", exe, "echo"}} {
		c := exec.CommandContext(ctx, args[0], args[1:]...)
		if err := lab.InNetns(ns, c.Start); err != nil {
			stop()
			return stop, err
		}
		running = append(running, c)
	}
	time.Sleep(300 * time.Millisecond)
	return stop, nil
}

func stream(ctx context.Context, p path) (bps, cpu float64, err error) {
	before := busy()
	c := exec.CommandContext(ctx, "iperf3", "-c", p.addr, "-t", strconv.Itoa(int(span.Seconds())), "-J")
	var out strings.Builder
	c.Stdout = &out
	if err := lab.InNetns("/run/netns/"+p.client, c.Start); err != nil {
		return 0, 0, err
	}
	if err := c.Wait(); err != nil {
		return 0, 0, fmt.Errorf("iperf3: %w: %s", err, out.String())
	}
	used := busy() - before
	var report struct {
		End struct {
			Sum struct {
				Bits  float64 `json:"bits_per_second"`
				Bytes float64 `json:"bytes"`
			} `json:"sum_received"`
		} `json:"end"`
	}
	if err := json.Unmarshal([]byte(out.String()), &report); err != nil {
		return 0, 0, err
	}
	return report.End.Sum.Bits, used / (report.End.Sum.Bytes / 1e9), nil
}

// busy is how many core-seconds the machine has worked since it started.
func busy() float64 {
	f, err := os.Open("/proc/stat")
	if err != nil {
		return 0
	}
	defer f.Close()
	line, _ := bufio.NewReader(f).ReadString('\n')
	var ticks float64
	for i, v := range strings.Fields(line)[1:] {
		if n, _ := strconv.ParseFloat(v, 64); i != 3 && i != 4 && i < 8 { // idle, iowait
			ticks += n
		}
	}
	return ticks / 100
}

// inside runs this program as a client in the namespace.
func inside(ctx context.Context, ns, kind, addr string) (float64, error) {
	exe, err := os.Executable()
	if err != nil {
		return 0, err
	}
	// Client and echo server share one core: what is measured is the path, not
	// how fast another core wakes up.
	c := exec.CommandContext(ctx, "taskset", "-c", "0", exe, kind, addr)
	var out, errs strings.Builder
	c.Stdout, c.Stderr = &out, &errs
	if err := lab.InNetns("/run/netns/"+ns, c.Start); err != nil {
		return 0, err
	}
	if err := c.Wait(); err != nil {
		return 0, fmt.Errorf("%w: %s", err, errs.String())
	}
	return strconv.ParseFloat(strings.TrimSpace(out.String()), 64)
}

const port = ":7777"

// echo answers TCP and UDP byte by byte until it is killed.
func echo() error {
	l, err := net.Listen("tcp", port)
	if err != nil {
		return err
	}
	u, err := net.ListenPacket("udp", port)
	if err != nil {
		return err
	}
	go func() {
		b := make([]byte, 64)
		for {
			n, from, err := u.ReadFrom(b)
			if err != nil {
				return
			}
			u.WriteTo(b[:n], from)
		}
	}()
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		go func() {
			defer c.Close()
			io.CopyBuffer(struct{ io.Writer }{c}, struct{ io.Reader }{c}, make([]byte, 64))
		}()
	}
}

// rate repeats one for the span and returns how often per second it went.
func rate(one func() error) (float64, error) {
	began := time.Now()
	n := 0
	for time.Since(began) < span {
		if err := one(); err != nil {
			return 0, err
		}
		n++
	}
	return float64(n) / time.Since(began).Seconds(), nil
}

func roundTrips(network, addr string) (float64, error) {
	c, err := net.Dial(network, addr+port)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(10 * time.Second))
	b := []byte{1}
	return rate(func() error {
		if _, err := c.Write(b); err != nil {
			return err
		}
		_, err := io.ReadFull(c, b)
		return err
	})
}

func connections(addr string) (float64, error) {
	b := []byte{1}
	return rate(func() error {
		c, err := net.DialTimeout("tcp", addr+port, 5*time.Second)
		if err != nil {
			return err
		}
		defer c.Close()
		c.(*net.TCPConn).SetLinger(0) // keeps the ports from running out
		c.SetDeadline(time.Now().Add(5 * time.Second))
		if _, err := c.Write(b); err != nil {
			return err
		}
		_, err = io.ReadFull(c, b)
		return err
	})
}
