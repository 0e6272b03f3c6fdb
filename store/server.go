package store

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apiextensionsapiserver "k8s.io/apiextensions-apiserver/pkg/apiserver"
	"k8s.io/apimachinery/pkg/runtime"
	utilerrors "k8s.io/apimachinery/pkg/util/errors"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apiserver/pkg/admission/plugin/namespace/lifecycle"
	mutatingpolicy "k8s.io/apiserver/pkg/admission/plugin/policy/mutating"
	validatingpolicy "k8s.io/apiserver/pkg/admission/plugin/policy/validating"
	mutatingwebhook "k8s.io/apiserver/pkg/admission/plugin/webhook/mutating"
	validatingwebhook "k8s.io/apiserver/pkg/admission/plugin/webhook/validating"
	apifilters "k8s.io/apiserver/pkg/endpoints/filters"
	"k8s.io/apiserver/pkg/endpoints/request"
	apiserver "k8s.io/apiserver/pkg/server"
	"k8s.io/apiserver/pkg/util/notfoundhandler"
	"k8s.io/apiserver/pkg/util/webhook"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	aggregator "k8s.io/kube-aggregator/pkg/apiserver"
	aggregatorscheme "k8s.io/kube-aggregator/pkg/apiserver/scheme"
	"k8s.io/kubernetes/pkg/api/legacyscheme"
	"k8s.io/kubernetes/pkg/controlplane"
	controlplaneapiserver "k8s.io/kubernetes/pkg/controlplane/apiserver"
	"k8s.io/kubernetes/pkg/controlplane/apiserver/options"
	generatedopenapi "k8s.io/kubernetes/pkg/generated/openapi"
	kubeoptions "k8s.io/kubernetes/pkg/kubeapiserver/options"
)

// stopTimeout bounds how long open requests may delay a shutdown.
const stopTimeout = 3 * time.Second

// hooksTimeout bounds how long a start may delay a stop: after half a minute the
// last hook gives up by itself.
const hooksTimeout = 35 * time.Second

// issuer is the `iss` of service account tokens; tokens are only for us.
const issuer = "https://api.moire.dev"

// serve runs the API server until ctx ends.
func (s *Store) serve(ctx context.Context, files keyFiles, db *database, logs logs) error {
	listener, err := net.Listen("tcp", s.cfg.Listen)
	if err != nil {
		return fmt.Errorf("store: cannot listen on %s: %w; stop what uses the port or choose another --listen", s.cfg.Listen, err)
	}
	defer listener.Close() // closed already unless we fail early
	server, err := s.build(ctx, listener, files, db)
	if err != nil {
		return err
	}
	prepared, err := server.PrepareRun()
	if err != nil {
		return fmt.Errorf("store: prepare the API server: %w", err)
	}

	// The server outlives ctx: what uses it stops first.
	serving, stop := context.WithCancelCause(context.WithoutCancel(ctx))
	defer stop(nil)
	serverDone := make(chan error, 1)
	go func() { serverDone <- prepared.Run(serving) }()

	working, stopWork := context.WithCancel(ctx)
	defer stopWork()
	workDone := make(chan error, 1)
	loopback := server.GenericAPIServer.LoopbackClientConfig
	go func() { workDone <- s.work(working, loopback, files, listener.Addr(), logs) }()

	var cause error
	select {
	case <-ctx.Done():
	case err := <-db.failed():
		cause = fmt.Errorf("store: etcd stopped: %w", err)
	case err := <-workDone:
		workDone <- nil
		if ctx.Err() == nil {
			cause = err
		}
	case err := <-serverDone:
		serverDone <- nil
		cause = fmt.Errorf("store: the API server stopped by itself: %w", errors.Join(err, errors.New("see the log")))
	}
	stopWork()
	<-workDone
	if cause == nil {
		s.finishStart(loopback)
	}
	stop(cause)
	if err := <-serverDone; err != nil && cause == nil && ctx.Err() == nil {
		cause = fmt.Errorf("store: API server: %w", err)
	}
	return cause
}

// finishStart waits until the hooks of the start are done. One that is
// interrupted ends the whole process, with 255 and up to half a minute later.
func (s *Store) finishStart(loopback *rest.Config) {
	if s.hooked.Load() {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), hooksTimeout)
	defer cancel()
	if err := s.awaitHooks(ctx, loopback); err != nil {
		s.log.Warn("the API server is stopped before it has started", "error", err)
	}
}

// awaitHooks waits until the hooks of the start are done.
func (s *Store) awaitHooks(ctx context.Context, loopback *rest.Config) error {
	client, err := kubernetes.NewForConfig(loopback)
	if err != nil {
		return fmt.Errorf("store: loopback client: %w", err)
	}
	err = untilOK(ctx, "hooks of the API server", func(ctx context.Context) error {
		ask := client.RESTClient().Get().AbsPath("/readyz")
		for _, other := range []string{"etcd", "etcd-readiness", "informer-sync"} { // they are no hooks
			ask = ask.Param("exclude", other)
		}
		return ask.Do(ctx).Error()
	})
	if err == nil {
		s.hooked.Store(true)
	}
	return err
}

// build puts the API servers together: CRDs, built-in kinds, aggregation.
func (s *Store) build(ctx context.Context, l net.Listener, files keyFiles, db *database) (*aggregator.APIAggregator, error) {
	opts, err := s.options(ctx, l, files, db)
	if err != nil {
		return nil, err
	}
	generic, informers, storage, err := controlplaneapiserver.BuildGenericConfig(opts,
		[]*runtime.Scheme{legacyscheme.Scheme, apiextensionsapiserver.Scheme, aggregatorscheme.Scheme},
		controlplane.DefaultGenericAPIResourceConfigSource(), generatedopenapi.GetOpenAPIDefinitions, nil)
	if err != nil {
		return nil, fmt.Errorf("store: configure the API server: %w", err)
	}
	generic.EffectiveVersion = servedVersion{generic.EffectiveVersion}
	longRunning := generic.LongRunningFunc
	generic.LongRunningFunc = func(r *http.Request, info *request.RequestInfo) bool {
		return longRunning(r, info) || s.world.longRunning(r, info)
	}
	generic.BuildHandlerChainFunc = func(next http.Handler, c *apiserver.Config) http.Handler {
		return apiserver.DefaultBuildHandlerChain(s.world.wrap(next), c)
	}

	resolver := webhook.NewDefaultServiceResolver()
	native, initializers, err := controlplaneapiserver.CreateConfig(opts, generic, informers, nil, storage, resolver, nil)
	if err != nil {
		return nil, fmt.Errorf("store: configure the built-in kinds: %w", err)
	}
	auth := webhook.NewDefaultAuthenticationInfoResolverWrapper(native.ProxyTransport, generic.EgressSelector, generic.LoopbackClientConfig, generic.TracerProvider)
	crds, err := controlplaneapiserver.CreateAPIExtensionsConfig(*native.Generic, native.VersionedInformers, initializers, opts, 1, resolver, auth)
	if err != nil {
		return nil, fmt.Errorf("store: configure CRDs: %w", err)
	}
	outer, err := controlplaneapiserver.CreateAggregatorConfig(*native.Generic, opts, native.VersionedInformers, resolver, native.ProxyTransport, native.Extra.PeerProxy, initializers)
	if err != nil {
		return nil, fmt.Errorf("store: configure aggregation: %w", err)
	}
	outer.ExtraConfig.DisableRemoteAvailableConditionController = true
	return chain(native, crds, outer)
}

// chain makes the three servers; each passes on what it does not know.
func chain(nativeConfig *controlplaneapiserver.Config, crdConfig *apiextensionsapiserver.Config, outerConfig *aggregator.Config) (*aggregator.APIAggregator, error) {
	completed, outer := nativeConfig.Complete(), outerConfig.Complete()
	notFound := notfoundhandler.New(nativeConfig.Generic.Serializer, apifilters.NoMuxAndDiscoveryIncompleteKey)
	crds, err := crdConfig.Complete().New(apiserver.NewEmptyDelegateWithCustomHandler(notFound))
	if err != nil {
		return nil, fmt.Errorf("store: make the CRD server: %w", err)
	}
	crdsOn := crds.GenericAPIServer != nil &&
		crdConfig.GenericConfig.MergedResourceConfig.ResourceEnabled(apiextensionsv1.SchemeGroupVersion.WithResource("customresourcedefinitions"))
	native, err := completed.New("moire-api", crds.GenericAPIServer)
	if err != nil {
		return nil, fmt.Errorf("store: make the server of built-in kinds: %w", err)
	}
	client, err := kubernetes.NewForConfig(nativeConfig.Generic.LoopbackClientConfig)
	if err != nil {
		return nil, fmt.Errorf("store: loopback client: %w", err)
	}
	providers, err := completed.GenericStorageProviders(client.Discovery())
	if err != nil {
		return nil, fmt.Errorf("store: storage of built-in kinds: %w", err)
	}
	if err := native.InstallAPIs(providers...); err != nil {
		return nil, fmt.Errorf("store: install built-in kinds: %w", err)
	}
	server, err := controlplaneapiserver.CreateAggregatorServer(outer, native.GenericAPIServer,
		crds.Informers.Apiextensions().V1().CustomResourceDefinitions(), crdsOn, controlplaneapiserver.DefaultGenericAPIServicePriorities())
	if err != nil {
		return nil, fmt.Errorf("store: make the aggregation server: %w", err)
	}
	server.GenericAPIServer.ShutdownTimeout = stopTimeout
	return server, nil
}

// options are what would be kube-apiserver's flags.
func (s *Store) options(ctx context.Context, l net.Listener, files keyFiles, db *database) (options.CompletedOptions, error) {
	o := options.NewOptions()
	o.SystemNamespaces = append(o.SystemNamespaces, systemNamespace)

	o.SecureServing.Listener = l
	o.SecureServing.MinTLSVersion = "VersionTLS13"
	o.SecureServing.ServerCert.CertKey.CertFile = files.servingCert
	o.SecureServing.ServerCert.CertKey.KeyFile = files.serveKey
	o.GenericServerRunOptions.AdvertiseAddress = net.ParseIP("127.0.0.1")
	if a, ok := l.Addr().(*net.TCPAddr); ok && !a.IP.IsUnspecified() {
		o.GenericServerRunOptions.AdvertiseAddress = a.IP
	}
	o.GenericServerRunOptions.ExternalHost = reachable(l.Addr())
	o.GenericServerRunOptions.ShutdownWatchTerminationGracePeriod = time.Second

	o.Etcd.StorageConfig.Prefix = objectPrefix
	o.Etcd.StorageConfig.Transport.ServerList = db.endpoints
	o.Etcd.StorageConfig.Transport.TrustedCAFile = db.caFile
	o.Etcd.StorageConfig.Transport.CertFile = db.certFile
	o.Etcd.StorageConfig.Transport.KeyFile = db.keyFile

	o.Authentication.AuthenticationConfigFile = files.authenticationSettings
	o.Authentication.OIDC = nil // the file above takes its place
	o.Authentication.ClientCert.ClientCA = files.caCert
	o.Authentication.ServiceAccounts.Issuers = []string{issuer}
	o.Authentication.ServiceAccounts.KeyFiles = []string{files.serviceAccountKey}
	o.Authentication.ServiceAccounts.OptionalTokenGetter = newTokenGetter
	o.ServiceAccountSigningKeyFile = files.serviceAccountKey
	o.Authorization.Modes = []string{"RBAC"}
	o.Features.EnableProfiling = false

	on := sets.New(lifecycle.PluginName, mutatingpolicy.PluginName, validatingpolicy.PluginName,
		mutatingwebhook.PluginName, validatingwebhook.PluginName)
	o.Admission.GenericAdmission.DefaultOffPlugins = sets.New(kubeoptions.AllOrderedPlugins...).Difference(on)

	completed, err := o.Complete(ctx, nil, nil)
	if err != nil {
		return completed, fmt.Errorf("store: complete the server's options: %w", err)
	}
	if errs := completed.Validate(); len(errs) > 0 {
		return completed, fmt.Errorf("store: options of the API server: %w", utilerrors.NewAggregate(errs))
	}
	return completed, nil
}
