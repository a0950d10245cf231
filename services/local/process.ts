import { readFileSync } from 'node:fs';
import { runCommandLine } from './command-line.ts';
import type { Verb } from './commands/registry.ts';

const SIGNAL_EXIT_CODES = { SIGINT: 130, SIGTERM: 143, SIGHUP: 129 } as const;

/**
 * Connects this process (streams, signals, environment) to the commands, runs what its arguments ask for and ends it. The first
 * Ctrl-C asks the command to stop, the second ends the process at once.
 */
export async function runProcess(verbs: Readonly<Record<string, Verb>>): Promise<void> {
  const interruption = new AbortController();
  let interruptedBy: keyof typeof SIGNAL_EXIT_CODES | undefined;
  for (const name of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
    process.on(name, () => {
      if (interruptedBy !== undefined) process.exit(SIGNAL_EXIT_CODES[name]);
      interruptedBy = name;
      interruption.abort(new DOMException(`Interrupted by ${name}`, 'AbortError'));
    });
  }

  // A reader that went away (`| head`) is not our failure: the work goes on, its output goes nowhere.
  for (const stream of [process.stdout, process.stderr]) {
    stream.on('error', (error: NodeJS.ErrnoException) => {
      if (error.code !== 'EPIPE') throw error;
    });
  }

  const { version } = JSON.parse(readFileSync(new URL('../../package.json', import.meta.url), 'utf8')) as {
    version: string;
  };
  const code = await runCommandLine(
    {
      verbs,
      version,
      debug: process.env.HOLDFAST_DEBUG === '1',
      io: {
        stdout: process.stdout,
        stderr: process.stderr,
        stdin: process.stdin,
        signal: interruption.signal,
        isTty: process.stderr.isTTY === true,
      },
    },
    process.argv.slice(2),
  );
  const exitCode = interruptedBy !== undefined && code === 130 ? SIGNAL_EXIT_CODES[interruptedBy] : code;
  // Wait until a slow reader has taken the last line; a connection that idles somewhere must not keep us.
  process.stdout.write('', () => process.exit(exitCode));
}
