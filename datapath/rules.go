package datapath

import (
	"fmt"

	"moire.dev/moire/datapath/bpf"
	"moire.dev/moire/snapshot/policy"
)

// closedRule is the number of policy.NoPolicy, which the programs know.
const closedRule = 1

// ruleBook gives rule ids numbers. It lives as long as the tables that hold
// the numbers, in a pinned table of its own, so a restart keeps their meaning.
type ruleBook struct {
	*table[uint32, bpf.MoireRuleName]
	numbers map[policy.RuleID]uint32
	names   map[uint32]policy.RuleID
	next    uint32
}

func newRuleBook(t *table[uint32, bpf.MoireRuleName]) (*ruleBook, error) {
	b := &ruleBook{table: t}
	return b, b.load()
}

// load reads the table again.
func (b *ruleBook) load() error {
	if err := b.read(); err != nil {
		return err
	}
	b.numbers, b.names, b.next = map[policy.RuleID]uint32{}, map[uint32]policy.RuleID{}, max(b.next, closedRule+1)
	for n, r := range b.rows {
		id := policy.RuleID(ruleText(r))
		b.names[n], b.numbers[id] = id, n
		b.next = max(b.next, n+1)
	}
	if b.names[closedRule] != policy.NoPolicy {
		if err := b.put(closedRule, ruleName(string(policy.NoPolicy))); err != nil {
			return err
		}
		b.names[closedRule], b.numbers[policy.NoPolicy] = policy.NoPolicy, closedRule
	}
	return nil
}

// number of a rule id; an empty id is 0.
func (b *ruleBook) number(id policy.RuleID) (uint32, error) {
	if id == "" {
		return 0, nil
	}
	if n, ok := b.numbers[id]; ok {
		return n, nil
	}
	var r bpf.MoireRuleName
	if len(id) > len(r.Text)-1 {
		return 0, fmt.Errorf("rule id %.60s... has %d bytes; at most %d fit, shorten the names in it", id, len(id), len(r.Text)-1)
	}
	n := b.next
	if err := b.put(n, ruleName(string(id))); err != nil {
		return 0, err
	}
	b.next++
	b.numbers[id], b.names[n] = n, id
	return n, nil
}

// forget removes the names of rules that nothing refers to any more.
func (b *ruleBook) forget(used map[uint32]bool) error {
	for n, id := range b.names {
		if n == closedRule || used[n] || isPlatform(id) {
			continue
		}
		if err := b.remove(n); err != nil {
			return err
		}
		delete(b.names, n)
		delete(b.numbers, id)
	}
	return nil
}
