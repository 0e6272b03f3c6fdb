package proxy

import (
	stdtls "crypto/tls"

	"moire.dev/moire/proxy/route"
	"moire.dev/moire/snapshot/l7"
)

type serverTLS struct{}
type secrets struct{}
type tlsLayer struct{}

func (y *tlsLayer) wake()                                      {}
func (p *Proxy) certificates(*l7.Config) error                 { return nil }
func (p *Proxy) clientTLS(*l7.Cluster) (*stdtls.Config, error) { return nil, nil }
func (p *Proxy) serverTLS(*l7.Listener) (*serverTLS, error)    { return nil, nil }
func (p *Proxy) secretsChanged()                               {}
func (g *greeting) readHeader() bool                           { return true }
func (g *greeting) peekTLS()                                   {}
func (g *greeting) handshake()                                 {}
func (u *upConn) announce()                                    {}
func (u *upConn) handshake()                                   {}

type mirror struct{}

func (x *exchange) mirror([]route.Mirror)   {}
func (p *pool) spokenLike(s *settings) bool { return true }
