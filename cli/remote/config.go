package remote

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"k8s.io/client-go/tools/clientcmd"

	"moire.dev/moire/cli/fault"
)

// LocalKubeconfig is where `moire up` and moired leave a kubeconfig.
const LocalKubeconfig = "/run/moire/kubeconfig"

// Config says which server to talk to, and as whom.
type Config struct {
	// Kubeconfig names a file. Default: $KUBECONFIG, /run/moire/kubeconfig,
	// ~/.kube/config: the first that exists.
	Kubeconfig string
	// Context in it. Default: its current context.
	Context string
	// Namespace. Default: that of the context, then "default".
	Namespace string
	// Timeout of one request; 0 is no limit.
	Timeout time.Duration
	// Agent is the User-Agent header.
	Agent string
	// Getenv reads the environment; default os.Getenv.
	Getenv func(string) string
}

// Open finds and reads the kubeconfig. It does not talk to the server.
func Open(c Config) (*Client, error) {
	if c.Getenv == nil {
		c.Getenv = os.Getenv
	}
	files, err := c.files()
	if err != nil {
		return nil, err
	}
	rules := &clientcmd.ClientConfigLoadingRules{Precedence: files}
	origin := files[0]
	overrides := &clientcmd.ConfigOverrides{CurrentContext: c.Context}
	overrides.Context.Namespace = c.Namespace
	loaded, err := rules.Load()
	if err != nil {
		return nil, fault.Usagef("mend the file, or choose another with --kubeconfig FILE", "kubeconfig %s: %v", origin, err)
	}
	if c.Context != "" {
		if _, ok := loaded.Contexts[c.Context]; !ok {
			return nil, fault.Usagef("see the names with `kubectl config get-contexts`", "kubeconfig %s has no context %q", origin, c.Context)
		}
	}
	client := clientcmd.NewNonInteractiveClientConfig(*loaded, c.Context, overrides, nil)
	config, err := client.ClientConfig()
	if err != nil {
		return nil, fault.Usagef("mend the file, or choose another with --kubeconfig FILE", "kubeconfig %s: %v", origin, err)
	}
	namespace, _, err := client.Namespace()
	if err != nil || namespace == "" {
		namespace = "default"
	}
	r, err := New(config, c.Timeout, c.Agent)
	if err != nil {
		return nil, fault.Usagef("mend the file, or choose another with --kubeconfig FILE", "kubeconfig %s: %v", origin, err)
	}
	r.Namespace, r.Origin = namespace, origin
	return r, nil
}

// files are the kubeconfigs to merge, in order of precedence.
func (c Config) files() ([]string, error) {
	if c.Kubeconfig != "" {
		if err := readable(c.Kubeconfig); err != nil {
			return nil, fault.Usagef("give the path of a kubeconfig, such as --kubeconfig "+LocalKubeconfig, "--kubeconfig: %v", err)
		}
		return []string{c.Kubeconfig}, nil
	}
	if list := filepath.SplitList(c.Getenv("KUBECONFIG")); len(list) > 0 {
		var there []string
		for _, f := range list {
			if f != "" && readable(f) == nil {
				there = append(there, f)
			}
		}
		if len(there) == 0 {
			return nil, fault.Usagef("unset KUBECONFIG, or let it name a kubeconfig such as "+LocalKubeconfig,
				"KUBECONFIG=%s: no such file can be read", c.Getenv("KUBECONFIG"))
		}
		return there, nil
	}
	var denied error
	for _, f := range []string{LocalKubeconfig, filepath.Join(c.Getenv("HOME"), ".kube", "config")} {
		err := readable(f)
		if err == nil {
			return []string{f}, nil
		}
		if errors.Is(err, fs.ErrPermission) && denied == nil {
			denied = err
		}
	}
	if denied != nil {
		return nil, fault.New(fault.Forbidden, "run this as root, or name a kubeconfig of your own with --kubeconfig FILE", "%v", denied)
	}
	return nil, fault.New(fault.Unreachable, "start a control plane with `moire up`, or name a kubeconfig with --kubeconfig FILE",
		"no API server is known: neither %s nor ~/.kube/config exists, and KUBECONFIG is not set", LocalKubeconfig)
}

func readable(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if info.IsDir() {
		return fmt.Errorf("%s is a directory", path)
	}
	return nil
}
