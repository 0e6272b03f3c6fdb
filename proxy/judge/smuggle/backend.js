// A back end of the smuggling corpus: says in X-Saw what it saw.
const http = require('node:http');
const [address, lenient] = process.argv.slice(2);
const [host, port] = address.split(':');
const server = http.createServer({ insecureHTTPParser: lenient === 'true', requireHostHeader: false, keepAliveTimeout: 30000 }, (req, res) => {
  const norm = (() => {
    try { return new URL(req.url, 'http://a.test').pathname; } catch { return req.url; }
  })();
  const h = req.headers;
  const one = (v) => (v === undefined ? '' : String(v));
  const safe = (s) => s.replace(/[^\x20-\x7e]/g, '?');
  req.on('data', () => {});
  req.on('error', () => {});
  req.on('end', () => {
    res.setHeader('X-Saw', safe([one(h['x-stamp']), one(h['x-route']), req.method, one(h.host), norm, req.url].join('|')));
    res.end('ok\n');
  });
});
server.on('upgrade', (req, socket) => socket.destroy());
server.on('connect', (req, socket) => socket.destroy());
server.listen(Number(port), host);
