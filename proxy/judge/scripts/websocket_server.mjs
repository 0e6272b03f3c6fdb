// An echo server for WebSocket, of npm's ws. usage: node websocket_server.mjs host:port
import { createRequire } from 'node:module';
import path from 'node:path';
const require = createRequire(path.join(process.cwd(), 'x.js'));
const { WebSocketServer } = require('ws');

const [host, port] = process.argv[2].split(':');
const server = new WebSocketServer({
  host, port: Number(port), maxPayload: 64 << 20, perMessageDeflate: true,
  handleProtocols: (offered) => (offered.has('chat') ? 'chat' : false),
  verifyClient: ({ req }) => !req.url.startsWith('/refuse'),
});
server.on('connection', (ws, req) => {
  ws.on('error', () => {});
  const [, what, code] = req.url.split('/');
  if (what === 'close') {
    ws.close(Number(code), 'as asked');
  } else if (what === 'ping') {
    ws.on('pong', (data) => ws.send('pong ' + data));
    ws.ping('from the server');
  } else if (what === 'drop') {
    ws.terminate();
  } else if (what === 'closed') {
    // Tells the next caller how the last one left.
    ws.send(JSON.stringify(server.last ?? null));
  } else {
    ws.on('message', (data, binary) => ws.send(data, { binary }));
    ws.on('close', (code, reason) => { server.last = { code, reason: String(reason) }; });
  }
});
