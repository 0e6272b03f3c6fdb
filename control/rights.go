package control

import (
	"context"
	"net/http"

	authorizationv1 "k8s.io/api/authorization/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/endpoints/request"
	authorizationclient "k8s.io/client-go/kubernetes/typed/authorization/v1"
	"k8s.io/client-go/rest"

	"moire.dev/moire/api/v1alpha1"
)

// rights asks the API server what a caller of a virtual resource may do beyond
// what the path of the request was allowed for.
type rights struct {
	// config of the loopback client; nil before the API server is ready.
	config func() *rest.Config
}

// sees returns who may be seen by the caller in an answer to a request in one
// project: that project, and others whose explain he may ask. Every project is
// asked about once. What cannot be found out is not seen.
func (a rights) sees(r *http.Request, project string) func(string) bool {
	known := map[string]bool{project: true}
	return func(other string) bool {
		may, asked := known[other]
		if !asked {
			who, ok := request.UserFrom(r.Context())
			may = ok && a.may(r.Context(), who, other)
			known[other] = may
		}
		return may
	}
}

func (a rights) may(ctx context.Context, who user.Info, project string) bool {
	cfg := a.config()
	if cfg == nil {
		return false
	}
	client, err := authorizationclient.NewForConfig(cfg)
	if err != nil {
		return false
	}
	extra := map[string]authorizationv1.ExtraValue{}
	for k, v := range who.GetExtra() {
		extra[k] = v
	}
	answer, err := client.SubjectAccessReviews().Create(ctx, &authorizationv1.SubjectAccessReview{
		Spec: authorizationv1.SubjectAccessReviewSpec{
			User: who.GetName(), UID: who.GetUID(), Groups: who.GetGroups(), Extra: extra,
			ResourceAttributes: &authorizationv1.ResourceAttributes{
				Namespace: project, Verb: "list", Group: v1alpha1.GroupVersion.Group, Version: v1alpha1.GroupVersion.Version, Resource: "explain",
			},
		},
	}, metav1.CreateOptions{})
	return err == nil && answer.Status.Allowed
}
