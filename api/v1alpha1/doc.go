// Package v1alpha1 holds the words that people write: the kinds of the API
// group moire.dev, version v1alpha1.
//
// In: nothing; these are plain values. Out: Go types, their deepcopy methods
// and, generated from them by `make gen`, the CRDs in api/crd.
// It never talks to a server, keeps state or decides anything.
//
// +kubebuilder:object:generate=true
// +groupName=moire.dev
package v1alpha1

import "k8s.io/apimachinery/pkg/runtime/schema"

// GroupVersion is the API group and version of every kind in this package.
var GroupVersion = schema.GroupVersion{Group: "moire.dev", Version: "v1alpha1"}

const (
	// DomainLabel on a namespace says to which Domain that project belongs.
	// Only who may "manage" the Domain may set, change or remove it.
	DomainLabel = "moire.dev/domain"
	// SystemNamespace holds Policies that hold for every Domain.
	SystemNamespace = "moire-system"
)
