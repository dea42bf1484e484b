// The real Fanfare binary as a child process, on a free port of the loopback.

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import PusherServer from 'pusher';
import { everyApp } from './apps.js';
import { within } from './inbox.js';

const running = new Set();
const folders = new Set();
const removeFolder = (folder) => rmSync(folder, { recursive: true, force: true });
process.on('exit', () => {
  running.forEach((child) => child.kill('SIGKILL'));
  folders.forEach(removeFolder);
});
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) process.once(signal, () => process.exit(1));

export class Broker {
  #child;
  #folder;
  #log = '';

  /** A broker that accepts connections. `settings` are sections of the configuration file, on top of ours. */
  static async start({ apps = everyApp, ...settings } = {}) {
    const broker = new Broker();
    broker.#folder = mkdtempSync(join(tmpdir(), 'fanfare-js-'));
    folders.add(broker.#folder);
    writeFileSync(
      join(broker.#folder, 'fanfare.toml'),
      toml({
        ...settings,
        server: { bind: '127.0.0.1:0', workers: 2, ...settings.server },
        metrics: { bind: '' },
        log: { level: 'warn' },
        apps,
      }),
    );
    await broker.#launch();
    return broker;
  }

  /** Ends as an operator ends it; it must leave with exit code 0. */
  async stop() {
    const child = this.#child;
    const ended = once(child, 'close');
    child.kill('SIGTERM');
    const [code, signal] = await within(ended, 'the broker to stop on SIGTERM');
    if (code !== 0) throw new Error(`the broker ended with code ${code}, signal ${signal}\n${this.#log}`);
  }

  /** Ends without a goodbye. */
  async kill() {
    const ended = once(this.#child, 'close');
    this.#child.kill('SIGKILL');
    await within(ended, 'the broker to die of SIGKILL');
  }

  /** A new process in the place of one that has ended: same configuration, same port. */
  async startAgain() {
    await this.#launch('--bind', `127.0.0.1:${this.port}`);
  }

  /** For the end of a test: stops what still runs and removes the configuration. */
  async end() {
    try {
      if (running.has(this.#child)) await this.stop();
    } finally {
      removeFolder(this.#folder);
    }
  }

  /** The official server SDK, set up for one app of this broker. */
  sdk(app, more = {}) {
    return new PusherServer({
      appId: app.id,
      key: app.keys[0].key,
      secret: app.keys[0].secret,
      host: '127.0.0.1',
      port: this.port,
      useTLS: false,
      encryptionMasterKeyBase64: app.masterKey,
      ...more,
    });
  }

  /** The options every pusher-js client of this broker needs. */
  clientOptions() {
    return {
      cluster: '',
      wsHost: '127.0.0.1',
      wsPort: this.port,
      forceTLS: false,
      enabledTransports: ['ws'],
    };
  }

  async #launch(...flags) {
    const binary = process.env.FANFARE_BIN;
    if (!binary) throw new Error('set FANFARE_BIN to the absolute path of the fanfare binary');
    const child = spawn(binary, ['serve', '--config', join(this.#folder, 'fanfare.toml'), ...flags], {
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    this.#child = child;
    running.add(child);
    child.once('close', () => running.delete(child));
    child.stderr.setEncoding('utf8').on('data', (text) => (this.#log = (this.#log + text).slice(-20_000)));
    const port = new Promise((resolve, reject) => {
      createInterface({ input: child.stdout }).on('line', (line) => {
        const found = /listening on http:\/\/\S+:(\d+)/.exec(line);
        if (found) resolve(Number(found[1]));
      });
      child.once('error', reject);
      child.once('close', (code) => reject(new Error(`the broker ended with code ${code}\n${this.#log}`)));
    });
    this.port = await within(port, 'the broker to listen');
  }
}

/** As much TOML as the configuration needs. The master key is no setting of the broker. */
function toml({ apps, ...sections }) {
  const table = (values) =>
    Object.entries(values)
      .filter(([key]) => key !== 'masterKey')
      .map(([key, value]) => `${key} = ${inline(value)}\n`)
      .join('');
  return [
    ...Object.entries(sections).map(([name, values]) => `[${name}]\n${table(values)}`),
    ...apps.map((app) => `[[apps]]\n${table(app)}`),
  ].join('\n');
}

function inline(value) {
  if (Array.isArray(value)) return `[${value.map(inline).join(', ')}]`;
  if (typeof value !== 'object') return JSON.stringify(value);
  return `{ ${Object.entries(value)
    .map(([key, inner]) => `${key} = ${inline(inner)}`)
    .join(', ')} }`;
}
