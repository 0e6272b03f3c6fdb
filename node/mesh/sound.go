package mesh

import (
	"fmt"
	"slices"

	"moire.dev/moire/snapshot/l7"
)

// Sound is a Config without the routes, clusters and certificates that no proxy
// can serve, and says what is wrong with these. What goes there gets an error;
// everybody else's stays served. It is the same Config when nothing can be left
// out.
func Sound(c *l7.Config) (*l7.Config, []string) {
	out, why := *c, []string(nil)
	problems := c.Validate()
	out.Routes, why = without(out.Routes, "routes", problems, func(r l7.Route) string { return r.Name }, why)
	out.Clusters, why = without(out.Clusters, "clusters", problems, func(c l7.Cluster) string { return c.Name }, why)
	out.Certificates, why = without(out.Certificates, "certificates", problems, func(c l7.Certificate) string { return c.Name }, why)
	if len(why) == 0 {
		return c, nil
	}
	m := *c.Mesh
	m.Workloads = slices.Clone(m.Workloads)
	for i := range m.Workloads {
		w := &m.Workloads[i]
		if !slices.ContainsFunc(out.Certificates, func(c l7.Certificate) bool { return c.Name == w.Certificate }) {
			w.Certificate = ""
		}
	}
	out.Mesh = &m
	return &out, why
}

// without leaves out the entries of a list that have a Problem.
func without[T any](list []T, field string, problems []l7.Problem, name func(T) string, why []string) ([]T, []string) {
	var out []T
	for i := range list {
		prefix := fmt.Sprintf("%s[%d].", field, i)
		n := slices.IndexFunc(problems, func(p l7.Problem) bool {
			return !p.Soft && len(p.Field) > len(prefix) && p.Field[:len(prefix)] == prefix
		})
		if n < 0 {
			out = append(out, list[i])
			continue
		}
		why = append(why, name(list[i])+": "+problems[n].Error())
	}
	return out, why
}
