// The web server of the app that Fanfare serves: authorises channels, authenticates users, serves pages.

import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { createRequire } from 'node:module';
import { text } from 'node:stream/consumers';
import { shop } from './apps.js';

const require = createRequire(import.meta.url);
const file = (url) => readFileSync(new URL(url, import.meta.url));
const library = (path) => readFileSync(require.resolve(path));

const page = (script) => `<!doctype html>
<meta charset="utf-8">
<title>A shop</title>
<link rel="icon" href="data:,">
<script src="${script}"></script>
<script type="module">
  import { Client } from '/support/client.js';
  window.Client = Client;
</script>
`;

/** The unmodified browser builds, by the path they are served at. */
const builds = {
  '/pusher-js-8.js': 'pusher-js/dist/web/pusher.js',
  '/pusher-js-8-with-encryption.js': 'pusher-js/dist/web/pusher-with-encryption.js',
  '/pusher-js-7.js': 'pusher-js-7/dist/web/pusher.js',
  '/pusher-js-7-with-encryption.js': 'pusher-js-7/dist/web/pusher-with-encryption.js',
};

export class BackEnd {
  #server;
  #broker;

  static async start(broker) {
    const backEnd = new BackEnd();
    backEnd.#broker = broker;
    backEnd.#server = createServer((request, response) => backEnd.#serve(request, response));
    backEnd.#server.listen(0, '127.0.0.1');
    await once(backEnd.#server, 'listening');
    backEnd.url = `http://127.0.0.1:${backEnd.#server.address().port}`;
    return backEnd;
  }

  async stop() {
    const closed = once(this.#server, 'close');
    this.#server.close();
    this.#server.closeAllConnections();
    await closed;
  }

  async #serve(request, response) {
    const { pathname } = new URL(request.url, this.url);
    const answer = (status, type, body) => {
      response.writeHead(status, { 'Content-Type': type });
      response.end(body);
    };
    if (request.method === 'POST') {
      const form = new URLSearchParams(await text(request));
      const who = form.get('user') ?? /^Bearer (\w+)$/.exec(request.headers.authorization)?.[1];
      const permit = who && this.#permit(pathname, who, form);
      if (permit) answer(200, 'application/json', JSON.stringify(permit));
      else answer(403, 'text/plain', 'no');
    } else if (pathname in builds) {
      answer(200, 'text/javascript', library(builds[pathname]));
    } else if (`${pathname}.js` in builds) {
      answer(200, 'text/html', page(`${pathname}.js`));
    } else if (/^\/support\/\w+\.js$/.test(pathname)) {
      answer(200, 'text/javascript', file(`.${pathname.slice('/support'.length)}`));
    } else {
      answer(404, 'text/plain', 'nothing here');
    }
  }

  /** Everyone may do everything, but for channels named `forbidden`; permits for `forged` are worth nothing. */
  #permit(path, who, form) {
    const channel = form.get('channel_name');
    const sdk = this.#broker.sdk(shop, channel?.includes('forged') ? { secret: 'stolen' } : {});
    const socketId = form.get('socket_id');
    if (path.endsWith('/user-auth')) return sdk.authenticateUser(socketId, { id: who, user_info: { name: who } });
    if (channel.includes('forbidden')) return undefined;
    const member = { user_id: who, user_info: { name: who } };
    return sdk.authorizeChannel(socketId, channel, channel.startsWith('presence-') ? member : undefined);
  }
}
