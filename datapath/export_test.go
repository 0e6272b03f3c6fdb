package datapath

import "github.com/cilium/ebpf"

// Corrupt turns the verdict of every row of the policy table round, behind the
// agent's back, and returns how many there were.
func (d *Datapath) Corrupt() (int, error) {
	n := 0
	err := d.locked(func() error {
		rows := d.sets.entries.rows
		for k, v := range rows {
			v.Allow = flag(v.Allow == 0)
			if err := d.objects.Policy.Update(&k, &v, ebpf.UpdateExist); err != nil {
				return err
			}
			n++
		}
		return nil
	})
	return n, err
}
