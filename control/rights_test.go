package control

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	rbacclient "k8s.io/client-go/kubernetes/typed/rbac/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"moire.dev/moire/explain"
)

// foreign: a viewer of one project learns nothing of another by asking; as
// soon as he may ask about both, he does.
func foreign(t *testing.T, c *running) {
	cfg, err := clientcmd.BuildConfigFromFlags("", c.Kubeconfig())
	if err != nil {
		t.Fatal(err)
	}
	rbac, err := rbacclient.NewForConfig(cfg)
	if err != nil {
		t.Fatal(err)
	}
	bind := func(project string) {
		t.Helper()
		_, err := rbac.RoleBindings(project).Create(t.Context(), &rbacv1.RoleBinding{
			ObjectMeta: metav1.ObjectMeta{Name: "eve"},
			Subjects:   []rbacv1.Subject{{Kind: rbacv1.UserKind, APIGroup: rbacv1.GroupName, Name: "eve"}},
			RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "moire-tenant-viewer"},
		}, metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
	}
	eve := rest.CopyConfig(cfg)
	eve.Impersonate = rest.ImpersonationConfig{UserName: "eve"}
	client, err := newClients(eve)
	if err != nil {
		t.Fatal(err)
	}
	ask := func(project, query string) (explain.Answer, string, error) {
		b, err := client.core.Get().AbsPath("/apis/moire.dev/v1alpha1/namespaces/"+project+"/explain").
			Param("from", "shop/web").Param("to", query).Param("port", "5432").DoRaw(t.Context())
		var a explain.Answer
		json.Unmarshal(b, &a)
		return a, string(b), err
	}
	if _, _, err := ask("shop", "shop/db"); err == nil {
		t.Error("eve may ask in a project without any right")
	}
	bind("default")
	for range 100 { // the authorizer of the API server hears of the binding
		if _, _, err := ask("default", "shop/db"); err == nil || !sleep(t.Context(), 50*time.Millisecond) {
			break
		}
	}
	for _, to := range []string{"shop/db", "10.0.0.1"} {
		a, text, err := ask("default", to)
		if err != nil || a.Error == "" || a.Source != nil || strings.Contains(text, "spiffe") || strings.Contains(text, "VNI") {
			t.Errorf("to %s: eve learns %s (%v)", to, text, err)
		}
	}
	bind("shop")
	for range 100 {
		if a, _, err := ask("default", "shop/db"); err == nil && a.Source != nil {
			return
		}
		if !sleep(t.Context(), 50*time.Millisecond) {
			break
		}
	}
	t.Error("with the right to ask about shop, eve still learns nothing")
}
