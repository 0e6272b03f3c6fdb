package node

import (
	"bytes"
	"crypto/md5"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"moire.dev/moire/node/local"
)

// guestInit is all that the guest does: it asks for its address with busybox'
// own client and says what it reaches. Its kernel hears the router by itself.
const guestInit = `#!/bin/busybox sh
/bin/busybox --install -s /bin
mount -t proc proc /proc; mount -t sysfs sysfs /sys
for again in 1 2 3 4; do for m in /m/*.ko; do insmod $m 2>/dev/null; done; done # they need each other
echo 0 > /proc/sys/net/ipv6/conf/eth0/accept_dad; echo 0 > /proc/sys/net/ipv6/conf/eth0/router_solicitation_delay
ip link set lo up; ip link set eth0 up
udhcpc -i eth0 -n -q -f -t 10 -T 1 -O staticroutes -s /script && echo "GUEST has $(ip -4 -o addr show dev eth0 | sed 's/.*inet \([^ ]*\).*/\1/')"
ip route
ping -c 1 -W 3 PEER4 && echo GUEST reaches PEER4
wget -q -O /got http://PEER4:8080/blob && echo "GUEST got $(wc -c < /got) bytes $(md5sum < /got)"
for i in 1 2 3 4 5 6 7 8 9 10; do ip -6 route | grep -q '^default via fe80::4d:4fff:fe49:5245' && break; sleep 1; done
ip -6 route | grep -q '^default via fe80::4d:4fff:fe49:5245' && echo GUEST heard the router
ip -6 addr add OWN6/128 dev eth0; sleep 1
ping -6 -c 1 -W 3 PEER6 && echo GUEST reaches PEER6
echo GUEST waits
while read line; do
	case $line in
	ping) ping -c 1 -W 1 PEER4 && echo GUEST still reaches || echo GUEST is cut off;;
	*) poweroff -f;;
	esac
done
`

const guestScript = `#!/bin/busybox sh
[ "$1" = bound ] || exit 0
ip addr add $ip/$mask dev eth0
ip link set eth0 mtu $mtu
set -- $staticroutes
while [ $# -gt 1 ]; do ip route add $1 via $2 dev eth0; shift 2; done
`

// initramfs packs busybox, the drivers and the script.
func initramfs(t *testing.T, kernel string, replace *strings.Replacer) string {
	t.Helper()
	dir := t.TempDir()
	root := filepath.Join(dir, "root")
	for _, d := range []string{"bin", "proc", "sys", "dev", "m"} {
		if err := os.MkdirAll(filepath.Join(root, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for name, text := range map[string]string{"init": guestInit, "script": guestScript} {
		if err := os.WriteFile(filepath.Join(root, name), []byte(replace.Replace(text)), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	sh(t, "sh", "-ec", fmt.Sprintf(`cd %s
b=$(command -v busybox); cp -L $b bin/busybox
ldd $b 2>/dev/null | grep -o '/[^ ]*' | while read l; do mkdir -p .$(dirname $l); cp -L $l .$l; done
find %s/lib/modules -path '*/virtio/virtio*.ko*' -o -name 'failover.ko*' -o -name 'net_failover.ko*' -o -name 'virtio_net.ko*' | while read f; do
	case "$f" in *.xz) xz -dc $f > m/$(basename $f .xz);; *) cp $f m/;; esac
done
find . | busybox cpio -o -H newc 2>/dev/null | gzip -1 > ../initramfs`, root, kernel))
	return filepath.Join(dir, "initramfs")
}

// said collects what a guest writes at its console.
type said struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (s *said) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.buf.Write(b)
}

func (s *said) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.buf.String()
}

// wait until the guest has said it n times.
func (s *said) wait(t *testing.T, text string, n int) {
	t.Helper()
	for deadline := time.Now().Add(60 * time.Second); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		if strings.Count(s.String(), text) >= n {
			return
		}
	}
	t.Fatalf("the guest has not said %q: %s", text, s)
}

// TestGuest boots a real machine on a tap, by emulation, so it needs nothing
// of this one. deploy/install brings its kernel.
func TestGuest(t *testing.T) {
	needRoot(t)
	const kernel = "/var/lib/moire-test/guest"
	needProgram(t, "qemu-system-x86_64", "busybox")
	images, err := filepath.Glob(kernel + "/boot/vmlinuz-*")
	if err != nil || len(images) == 0 {
		if os.Getenv("MOIRE_REQUIRE_ROOT") == "1" {
			t.Fatalf("there is no kernel in %s; run deploy/install", kernel)
		}
		t.Skip("there is no kernel for a guest; run deploy/install")
	}
	m := newMachine(t)
	m.writeSnapshot(withNames)
	m.start()
	w := addNetns(t, ns(t, "w1"))
	peer := m.attach("web", w)
	own := m.attachTap("vm", nil)[0]

	www := t.TempDir()
	blob := bytes.Repeat([]byte("0123456789abcdef"), 1<<18) // 4 MB
	if err := os.WriteFile(filepath.Join(www, "blob"), blob, 0o644); err != nil {
		t.Fatal(err)
	}
	server := exec.Command("nsenter", "--net="+w, "busybox", "httpd", "-f", "-p", "8080", "-h", www)
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { server.Process.Kill(); server.Wait() }()

	words := strings.NewReplacer("PEER4", peer.Addresses[0].String(), "PEER6", peer.Addresses[1].String(), "OWN6", own.Addresses[1].String())
	qemu := exec.Command("nsenter", "--net="+m.netns, "qemu-system-x86_64", "-accel", "tcg", "-cpu", "max", "-m", "192", "-nographic", "-no-reboot",
		"-kernel", images[0], "-initrd", initramfs(t, kernel, words), "-append", "console=ttyS0 quiet panic=-1",
		"-nic", "none", "-netdev", "tap,id=n,ifname="+own.IfName+",script=no,downscript=no", "-device", "virtio-net-pci,netdev=n,mac="+own.MAC)
	console := &said{}
	qemu.Stdout, qemu.Stderr = console, console
	keyboard, err := qemu.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := qemu.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- qemu.Wait() }()
	defer func() { qemu.Process.Kill(); <-ended }()

	console.wait(t, "GUEST waits", 1)
	expectAll(t, "guest", console.String(), "GUEST has "+own.Addresses[0].String()+"/24", "GUEST reaches "+peer.Addresses[0].String(),
		fmt.Sprintf("GUEST got %d bytes %x", len(blob), md5.Sum(blob)), "GUEST heard the router", "GUEST reaches "+peer.Addresses[1].String())
	for _, a := range own.Addresses {
		if err := ping(w, a); err != nil {
			t.Errorf("the guest does not answer at %s: %v", a, err)
		}
	}
	m.kill()
	io.WriteString(keyboard, "ping\n")
	console.wait(t, "GUEST still reaches", 1)
	m.start()
	io.WriteString(keyboard, "ping\n")
	console.wait(t, "GUEST still reaches", 2)
	if err := m.client().Detach(t.Context(), local.Detach{Project: "shop", Workload: "vm"}); err != nil {
		t.Fatal(err)
	}
	io.WriteString(keyboard, "ping\n")
	console.wait(t, "GUEST is cut off", 1)
	m.stop()
}
