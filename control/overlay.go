package control

import (
	"cmp"
	"crypto/sha256"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	apitypes "k8s.io/apimachinery/pkg/types"

	"moire.dev/moire/api/v1alpha1"
	"moire.dev/moire/compile"
	"moire.dev/moire/discovery"
	"moire.dev/moire/identity"
	"moire.dev/moire/snapshot"
)

// ReportedBy is the annotation with the node that reported a Workload that
// nobody declared.
const ReportedBy = "moire.dev/reported-by"

// shown is store.World: Workloads and Nodes as they are. It is made when
// somebody asks, from the facts of that moment.
type shown struct {
	loop  *loop
	state func() []discovery.NodeState

	mu        sync.Mutex
	from      *facts
	workloads map[string][]*unstructured.Unstructured // by project, sorted
	last      map[compile.Key]made
}

// made is an object with what it was made from.
type made struct {
	w *v1alpha1.Workload
	u *unstructured.Unstructured
}

func newShown(l *loop, state func() []discovery.NodeState) *shown {
	return &shown{loop: l, state: state}
}

// Changed is closed at the next change.
func (s *shown) Changed() <-chan struct{} { return s.loop.Changed() }

// Objects returns what the world says of a resource.
func (s *shown) Objects(resource, namespace string) []*unstructured.Unstructured {
	f := s.loop.current.Load()
	if f == nil {
		return nil
	}
	switch resource {
	case "nodes":
		return s.nodes(f)
	case "workloads":
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.from != f {
			s.build(f)
		}
		if namespace != "" {
			return s.workloads[namespace]
		}
		var all []*unstructured.Unstructured
		for _, project := range slices.Sorted(maps.Keys(s.workloads)) {
			all = append(all, s.workloads[project]...)
		}
		return all
	}
	return nil
}

// build makes the objects of all Workloads; those that did not change stay the
// same objects.
func (s *shown) build(f *facts) {
	next := map[compile.Key]made{}
	out := map[string][]*unstructured.Unstructured{}
	all := workloadsOf(f)
	for _, k := range slices.SortedFunc(maps.Keys(all), compareKeys) {
		w := all[k]
		m, known := s.last[k]
		if !known || !reflect.DeepEqual(m.w, w) {
			u, err := toUnstructured(w, "Workload")
			if err != nil {
				continue // plain structs always convert
			}
			m = made{w, u}
		}
		next[k] = m
		out[k.Project] = append(out[k.Project], m.u)
	}
	s.from, s.last, s.workloads = f, next, out
}

func toUnstructured(o any, kind string) (*unstructured.Unstructured, error) {
	content, err := runtime.DefaultUnstructuredConverter.ToUnstructured(o)
	if err != nil {
		return nil, err
	}
	u := &unstructured.Unstructured{Object: content}
	u.SetAPIVersion(v1alpha1.GroupVersion.String())
	u.SetKind(kind)
	return u, nil
}

// reported is one attachment and where it is.
type reported struct {
	node string
	*snapshot.Attachment
}

// workloadsOf says of every Workload, declared or reported, how it is.
func workloadsOf(f *facts) map[compile.Key]*v1alpha1.Workload {
	attachments := map[compile.Key][]reported{}
	for node, r := range f.in.Reports {
		for i := range r.Attachments {
			a := &r.Attachments[i]
			k := compile.Key{Project: a.Project, Name: a.Workload}
			attachments[k] = append(attachments[k], reported{node, a})
		}
	}
	out := make(map[compile.Key]*v1alpha1.Workload, len(attachments)+len(f.in.Workloads))
	for k, w := range f.in.Workloads {
		out[k] = &v1alpha1.Workload{ObjectMeta: metav1.ObjectMeta{Namespace: k.Project, Name: k.Name}}
		out[k].Status = f.status(k, w, attachments[k])
	}
	for k, as := range attachments {
		if out[k] == nil {
			w := worldOnly(k, as)
			w.Status = f.status(k, nil, as)
			out[k] = w
		}
	}
	return out
}

// worldOnly is a Workload that nobody declared, from its attachments.
func worldOnly(k compile.Key, as []reported) *v1alpha1.Workload {
	slices.SortFunc(as, func(a, b reported) int {
		return cmp.Or(a.Since.Compare(b.Since), cmp.Compare(a.node, b.node), cmp.Compare(a.Network, b.Network))
	})
	oldest := as[0]
	w := &v1alpha1.Workload{ObjectMeta: metav1.ObjectMeta{
		Namespace: k.Project, Name: k.Name,
		CreationTimestamp: metav1.NewTime(oldest.Since.UTC().Truncate(time.Second)),
		UID:               uid(k, oldest.Since),
		Annotations:       map[string]string{ReportedBy: oldest.node},
	}}
	for _, l := range oldest.Labels {
		if w.Labels == nil {
			w.Labels = map[string]string{}
		}
		w.Labels[l.Key] = l.Value
	}
	w.Spec.Account, w.Spec.Node = cmp.Or(oldest.Account, compile.DefaultAccount), oldest.node
	for _, a := range as {
		if !slices.ContainsFunc(w.Spec.Interfaces, func(i v1alpha1.Interface) bool { return i.Network == a.Network }) {
			w.Spec.Interfaces = append(w.Spec.Interfaces, v1alpha1.Interface{Network: a.Network})
		}
	}
	return w
}

// uid is the same for the same life of a Workload.
func uid(k compile.Key, since time.Time) apitypes.UID {
	h := sha256.Sum256(fmt.Appendf(nil, "%s %d", k, since.UnixNano()))
	h[6], h[8] = h[6]&0x0f|0x80, h[8]&0x3f|0x80 // version 8: our own
	return apitypes.UID(fmt.Sprintf("%x-%x-%x-%x-%x", h[0:4], h[4:6], h[6:8], h[8:10], h[10:16]))
}

// status says how a Workload is; declared is nil for one that nobody declared.
func (f *facts) status(k compile.Key, declared *v1alpha1.Workload, as []reported) v1alpha1.WorkloadStatus {
	var s v1alpha1.WorkloadStatus
	f.identify(k, declared, as, &s)
	slices.SortFunc(as, func(a, b reported) int {
		return cmp.Or(cmp.Compare(a.Network, b.Network), a.Since.Compare(b.Since), cmp.Compare(a.node, b.node))
	})
	waiting, stale, running := false, false, false
	for _, a := range as {
		if refused := f.refusal(a); refused != "" {
			s.Phase, s.Message = v1alpha1.PhaseFailed, "node "+a.node+": "+refused
			s.Node = cmp.Or(s.Node, a.node)
			continue
		}
		running = true
		s.Node = a.node
		waiting = waiting || len(a.Addresses) == 0
		stale = stale || !f.nodes[a.node].connected()
		i := v1alpha1.InterfaceStatus{Network: a.Network, VNI: int32(a.VNI)}
		for _, ip := range a.Addresses {
			i.Addresses = append(i.Addresses, ip.String())
		}
		if a.MAC != (snapshot.MAC{}) {
			i.MAC = a.MAC.String()
		}
		s.Interfaces = append(s.Interfaces, i)
	}
	p, bad := f.problems["Workload "+k.String()]
	switch {
	case s.Phase == v1alpha1.PhaseFailed:
	case running && stale:
		s.Phase, s.Message = v1alpha1.PhaseStale, "node "+s.Node+" is away; this is what it said last"
	case running && waiting:
		s.Phase, s.Message = v1alpha1.PhasePending, "waiting for an address"
	case running:
		s.Phase = v1alpha1.PhaseRunning
	case declared != nil && f.external(declared, &s):
		s.Phase = v1alpha1.PhaseRunning
	default:
		s.Phase, s.Message = v1alpha1.PhasePending, "not attached; attach it on a node, for example with moire attach"
	}
	if bad && s.Phase != v1alpha1.PhaseFailed {
		s.Message = sentence(p)
		if !p.Warning && s.Phase == v1alpha1.PhasePending {
			s.Phase = v1alpha1.PhaseFailed
		}
	}
	return s
}

// refusal is why the node was told not to attach it.
func (f *facts) refusal(a reported) string {
	if s := f.snaps[a.node]; s != nil {
		return s.Grants[a.AttachmentKey].Error
	}
	return ""
}

// external fills in a Workload behind a Node without an agent: what is
// declared is what is.
func (f *facts) external(w *v1alpha1.Workload, s *v1alpha1.WorkloadStatus) bool {
	n := f.in.Nodes[w.Spec.Node]
	if n == nil || !n.Spec.External {
		return false
	}
	s.Node = w.Spec.Node
	for _, i := range w.Spec.Interfaces {
		status := v1alpha1.InterfaceStatus{Network: i.Network, Addresses: i.Addresses, MAC: i.MAC}
		if net := f.in.Networks[compile.Key{Project: w.Namespace, Name: i.Network}]; net != nil {
			status.VNI = net.Status.VNI
		}
		s.Interfaces = append(s.Interfaces, status)
	}
	return true
}

// identify fills in who it is.
func (f *facts) identify(k compile.Key, declared *v1alpha1.Workload, as []reported, s *v1alpha1.WorkloadStatus) {
	domain := f.in.Projects[k.Project]
	d := f.in.Domains[domain]
	if d == nil {
		return
	}
	id := snapshot.Identity{Domain: domain, Project: k.Project}
	switch {
	case declared != nil:
		id.Account, id.Labels = declared.Spec.Account, compile.LabelsOf(declared.Labels)
	case len(as) > 0:
		id.Account, id.Labels = as[0].Account, as[0].Labels
	}
	id.Account = cmp.Or(id.Account, compile.DefaultAccount)
	s.Identity = int64(f.in.Identities[compile.KeyOf(id)])
	s.SPIFFEID = identity.WorkloadID(compile.TrustDomain(d), k.Project, id.Account)
}

// nodes says how every declared Node is.
func (s *shown) nodes(f *facts) []*unstructured.Unstructured {
	states := map[string]discovery.NodeState{}
	for _, st := range s.state() {
		states[st.Node] = st
	}
	var out []*unstructured.Unstructured
	for _, name := range slices.Sorted(maps.Keys(f.in.Nodes)) {
		n := &v1alpha1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: f.in.Nodes[name].Spec}
		n.Status = nodeStatus(f.in.Nodes[name], f.nodes[name], states[name])
		if u, err := toUnstructured(n, "Node"); err == nil {
			out = append(out, u)
		}
	}
	return out
}

func nodeStatus(n *v1alpha1.Node, w nodeWorld, st discovery.NodeState) v1alpha1.NodeStatus {
	if n.Spec.External {
		return v1alpha1.NodeStatus{State: v1alpha1.NodeExternal}
	}
	s := v1alpha1.NodeStatus{Wanted: string(st.Wanted), Acked: string(w.acked), Applied: string(w.applied), LastError: w.err, RecordsLost: int64(w.lost)}
	if w.here && st.Connected {
		s.Acked, s.Applied, s.LastError = string(st.Acked), string(st.Applied), st.Error
	}
	if w.report != nil {
		s.Agent, s.Kernel = w.report.Agent, w.report.Kernel
		workloads := map[[2]string]bool{}
		for _, a := range w.report.Attachments {
			workloads[[2]string{a.Project, a.Workload}] = true
		}
		s.Workloads = int32(len(workloads))
		s.Held, s.Repairs, s.LastRepair, s.Proxies = w.report.Held, int64(w.report.Repairs), w.report.LastRepair, w.report.Proxies
	}
	seen := w.seen
	if st.LastSeen.After(seen) {
		seen = st.LastSeen
	}
	if !seen.IsZero() {
		t := metav1.NewTime(seen.UTC().Truncate(time.Second))
		s.LastSeen = &t
	}
	switch {
	case !w.connected():
		s.State = v1alpha1.NodeStale
	case s.LastError != "" && s.LastError != s.Held: // what is held is refused, too
		s.State = v1alpha1.NodeFailing
	case s.Held != "":
		s.State = v1alpha1.NodeHeld
	case s.Wanted != "" && s.Wanted != s.Applied:
		s.State = v1alpha1.NodeUpdating
	case s.Proxies != "":
		s.State = v1alpha1.NodeFailing
	default:
		s.State = v1alpha1.NodeReady
	}
	return s
}
