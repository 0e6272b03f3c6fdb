// A client of WebSocket: npm's ws over HTTP/1.1, ws over streams of Node's own
// HTTP/2 (extended CONNECT), or undici over HTTP/2.
// usage: node websocket_client.mjs ws|ws-h2|undici url [ca.pem]
// One line of JSON for each case: {"name": …, "error": …}.
import { createRequire } from 'node:module';
import { readFileSync } from 'node:fs';
import path from 'node:path';
import { connect } from 'node:http2';
import { createHash, randomBytes } from 'node:crypto';
const require = createRequire(path.join(process.cwd(), 'x.js'));
const [client, base, caFile] = process.argv.slice(2);
const ca = caFile ? readFileSync(caFile) : undefined;

let open;
if (client === 'ws') {
  const { WebSocket } = require('ws');
  open = (path, protocols = []) => {
    const ws = new WebSocket(base + path, protocols, { ca });
    ws.binaryType = 'arraybuffer';
    return ws;
  };
} else if (client === 'ws-h2') {
  const { WebSocket } = require('ws');
  const session = connect(base.replace('ws', 'http'), { ca });
  const ready = new Promise((yes, no) => { session.once('remoteSettings', yes); session.once('error', no); });
  open = (path, protocols = []) => {
    const ws = new WebSocket(null, undefined, { autoPong: true, closeTimeout: 5000 });
    ws.binaryType = 'arraybuffer';
    ws._isServer = false; // a socket that is handed over is a server's, by habit
    ws.on('error', () => {});
    ready.then(() => {
      const fields = { ':method': 'CONNECT', ':protocol': 'websocket', ':path': path, 'sec-websocket-version': '13' };
      if (protocols.length > 0) fields['sec-websocket-protocol'] = protocols.join(', ');
      const stream = session.request(fields, { endStream: false });
      stream.on('error', () => {});
      stream.once('response', (head) => {
        if (head[':status'] !== 200) {
          stream.close();
          ws.emit('error', new Error('status ' + head[':status']));
          ws.emit('close', 1006, Buffer.alloc(0));
          return;
        }
        ws._protocol = head['sec-websocket-protocol'] ?? '';
        ws.setSocket(stream, Buffer.alloc(0), { maxPayload: 64 << 20, skipUTF8Validation: false, allowSynchronousEvents: true });
      });
    }, (e) => ws.emit('error', e));
    return ws;
  };
} else {
  const { WebSocket, Agent } = require('undici');
  const dispatcher = new Agent({ allowH2: true, connect: { ca, ALPNProtocols: ['h2'] } });
  open = (path, protocols = []) => {
    const ws = new WebSocket(base + path, { protocols, dispatcher });
    ws.binaryType = 'arraybuffer';
    return ws;
  };
}

const within = (ms, promise) => Promise.race([promise, new Promise((_, no) => setTimeout(() => no(new Error(`nothing after ${ms} ms`)), ms))]);
const opened = (ws) => within(5000, new Promise((yes, no) => {
  ws.addEventListener('open', () => yes(ws));
  ws.addEventListener('error', (e) => no(new Error('error: ' + (e.message ?? e.error ?? ''))));
}));
const message = (ws) => within(8000, new Promise((yes, no) => {
  ws.addEventListener('message', (e) => yes(e.data), { once: true });
  ws.addEventListener('close', (e) => no(new Error('closed with ' + e.code)), { once: true });
}));
const closed = (ws) => within(5000, new Promise((yes) => ws.addEventListener('close', yes, { once: true })));
const same = (got, want) => { if (got !== want) throw new Error(`got ${String(got).slice(0, 80)}, want ${String(want).slice(0, 80)}`); };
const hash = (data) => createHash('sha256').update(Buffer.from(data)).digest('hex');
const cases = {
  text: async () => { const ws = await opened(open('/echo')); ws.send('héllo'); same(await message(ws), 'héllo'); ws.close(); },
  empty: async () => { const ws = await opened(open('/echo')); ws.send(''); same(await message(ws), ''); ws.close(); },
  binary: async () => { const ws = await opened(open('/echo')); ws.send(Uint8Array.of(0, 1, 255)); same(hash(await message(ws)), hash([0, 1, 255])); ws.close(); },
  '1 MiB': async () => { const b = randomBytes(1 << 20); const ws = await opened(open('/echo')); ws.send(b); same(hash(await message(ws)), hash(b)); ws.close(); },
  '16 MiB': async () => { const b = randomBytes(16 << 20); const ws = await opened(open('/echo')); ws.send(b); same(hash(await message(ws)), hash(b)); ws.close(); },
  '1 MiB of text': async () => { const s = 'x'.repeat(1 << 20); const ws = await opened(open('/echo')); ws.send(s); same((await message(ws)).length, s.length); ws.close(); },
  'server pings': async () => { const ws = open('/ping'); same(await message(ws), 'pong from the server'); ws.close(); },
  subprotocol: async () => { const ws = await opened(open('/echo', ['other', 'chat'])); same(ws.protocol, 'chat'); ws.close(); },
  'server closes 1000': async () => { const e = await closed(open('/close/1000')); same(e.code, 1000); same(e.reason, 'as asked'); },
  'server closes 1001': async () => same((await closed(open('/close/1001'))).code, 1001),
  'server closes 4321': async () => same((await closed(open('/close/4321'))).code, 4321),
  'client closes 3210': async () => {
    const ws = await opened(open('/echo')); ws.close(3210, 'bye'); const e = await closed(ws); same(e.code, 3210);
    const next = open('/closed'); same(await message(next), '{"code":3210,"reason":"bye"}'); next.close();
  },
  'server drops': async () => same((await closed(open('/drop'))).code, 1006),
  refused: async () => { const ws = open('/refuse'); let is = ''; ws.addEventListener('error', () => {}); ws.addEventListener('open', () => { is = 'opened'; }); await closed(ws).catch(() => {}); same(is, ''); },
  'a thousand in order': async () => {
    const ws = await opened(open('/echo'));
    let n = 0;
    const all = within(10000, new Promise((yes, no) => ws.addEventListener('message', (e) => { if (e.data !== 'm' + n) no(new Error('out of order at ' + n)); if (++n === 1000) yes(); })));
    for (let i = 0; i < 1000; i++) ws.send('m' + i);
    await all; ws.close();
  },
  'twenty at a time': async () => {
    await Promise.all(Array.from({ length: 20 }, async (_, i) => { const ws = await opened(open('/echo')); ws.send('c' + i); same(await message(ws), 'c' + i); ws.close(); }));
  },
};
for (const [name, run] of Object.entries(cases)) {
  let error = '';
  try { await within(20000, run()); } catch (e) { error = String(e.message || e); }
  console.log(JSON.stringify({ name, error }));
}
process.exit(0);
