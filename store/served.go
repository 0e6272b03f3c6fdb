package store

import (
	"fmt"

	apiversion "k8s.io/apimachinery/pkg/version"
	"k8s.io/component-base/compatibility"
)

// servedVersion is what /version says. A library does not know its own version
// there, and clients such as Helm refuse what is not one.
type servedVersion struct{ compatibility.EffectiveVersion }

func (v servedVersion) Info() *apiversion.Info {
	info := *v.EffectiveVersion.Info()
	b := v.BinaryVersion()
	info.Major, info.Minor = fmt.Sprint(b.Major()), fmt.Sprint(b.Minor())
	info.GitVersion = fmt.Sprintf("v%d.%d.%d+moire", b.Major(), b.Minor(), b.Patch())
	info.GitCommit, info.GitTreeState, info.BuildDate = "", "", ""
	return &info
}
