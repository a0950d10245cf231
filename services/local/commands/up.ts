import { join } from 'node:path';
import { parseArgs } from 'node:util';
import type { CommandIo } from '#contract/command.ts';
import { HoldfastError } from '#contract/errors.ts';
import { startControlPlane } from '../main.ts';
import { superviseProxy } from '../proxy-process.ts';

export const summary = 'Run the control plane and one edge proxy on this machine';

export const usage = `Usage: holdfast up [--data DIR] [--port N] [--json]

Starts the API, the scheduler, the workflows and one edge proxy (a process of its own that talks to
the API only), and runs until Ctrl-C. Whatever was under way when it last stopped goes on.

  --data DIR   where everything is kept (default: holdfast-data)
  --port N     port on 127.0.0.1 (default: 8420; 0: any free one)
  --json       one JSON object a line: {"type":"ready",…} once the proxy is there`;

const DEFAULT_PORT = 8420;

/** Runs until the signal aborts; resolves to 0 after everything has stopped. */
export async function run(argv: string[], io: CommandIo): Promise<number> {
  const { values } = parseArgs({
    args: argv,
    options: { data: { type: 'string' }, port: { type: 'string' }, json: { type: 'boolean', default: false } },
  });
  const port = portOf(values.port);
  const folder = values.data ?? 'holdfast-data';
  const say = (line: string, json: object) => io.stdout.write(values.json ? `${JSON.stringify(json)}\n` : `${line}\n`);
  const log = (entry: { event: string; level: string; data?: object }) => {
    if (entry.level !== 'info') io.stderr.write(`${JSON.stringify(entry)}\n`);
  };

  await using plane = await startControlPlane({ folder, port, log });
  await using proxy = await superviseProxy({
    plane,
    folder: join(folder, 'proxy'),
    logFile: join(folder, 'proxy.log'),
    log: (line) => io.stderr.write(`${line}\n`),
  });
  const id = await proxy.online(io.signal);
  if (id !== undefined) {
    const text = [
      `Holdfast is up:  ${plane.url}`,
      `  API document   ${plane.url}/v1/openapi.json`,
      `  API key        in ${plane.apiKeyFile}`,
      `  proxy          ${id}, log in ${join(folder, 'proxy.log')}`,
      `  data           ${folder}`,
      'Ctrl-C stops it.',
    ].join('\n');
    const ready = { type: 'ready', url: plane.url, apiKeyFile: plane.apiKeyFile, proxy: id, data: folder };
    say(text, ready);
    await new Promise<void>((resolve) => {
      if (io.signal.aborted) resolve();
      io.signal.addEventListener('abort', () => resolve(), { once: true });
    });
  }
  say('Stopping …', { type: 'stopping' });
  return 0;
}

function portOf(text: string | undefined): number {
  if (text === undefined) return DEFAULT_PORT;
  const port = Number(text);
  if (/^\d{1,5}$/.test(text) && port <= 65_535) return port;
  throw new HoldfastError('usage', `"${text}" is not a port`, { remedy: 'Give a number from 0 to 65535' });
}
