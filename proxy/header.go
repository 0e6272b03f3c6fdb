package proxy

func (g *greeting) readHeader() bool { return true }
func (u *upConn) announce()          {}
