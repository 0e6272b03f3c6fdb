package store

import "testing"

func TestStart(t *testing.T) {
	t.Log(kubectl(t, "", "api-resources"))
	t.Log(kubectl(t, "", "get", "ns,crd,validatingadmissionpolicies"))
}
