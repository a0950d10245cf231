import type { Command, CommandIo } from '#contract/command.ts';
import { HoldfastError, isHoldfastError, reportOf } from '#contract/errors.ts';
import { didYouMean } from '#edge/commands/suggestion.ts';
import type { Verb } from './commands/registry.ts';

export interface CommandLine {
  readonly verbs: Readonly<Record<string, Verb>>;
  readonly version: string;
  readonly io: CommandIo;
  /** Print stacks of unexpected errors. */
  readonly debug?: boolean;
}

/**
 * Runs one command line, without the program's name, and resolves to its exit code: the command's own, 1 for
 * a failure, 2 for wrong usage, 130 when it was interrupted. Never throws; errors go to stderr, or with `--json` to stdout as
 * one object.
 */
export async function runCommandLine(line: CommandLine, argv: readonly string[]): Promise<number> {
  try {
    return await dispatch(line, argv);
  } catch (error) {
    return reportFailure(line, error, argv);
  }
}

async function dispatch(line: CommandLine, argv: readonly string[]): Promise<number> {
  const { verbs, io, version } = line;
  const [word, ...rest] = argv[0] === 'help' ? [...argv.slice(1), '--help'] : argv;
  if (word === undefined) {
    io.stderr.write(await overview(line));
    return 2;
  }
  if (word === '--help' || word === '-h') return print(io, await overview(line));
  if (word === '--version' || word === '-V') return print(io, `holdfast ${version}\n`);
  const verb = Object.hasOwn(verbs, word) ? verbs[word] : undefined;
  if (verb === undefined) {
    const what = word.startsWith('-') ? 'option' : 'command';
    const known = word.startsWith('-') ? ['--help', '--version'] : [...Object.keys(verbs), 'help'];
    throw new HoldfastError('usage', `Unknown ${what} ${word}`, { remedy: didYouMean(word, known, 'holdfast --help') });
  }
  const command = await load(word, verb);
  const args = [...(verb.prefix ?? []), ...rest];
  return asksForHelp(args) ? print(io, helpOf(command, args)) : command.run(args, io);
}

async function load(word: string, verb: Verb): Promise<Command> {
  try {
    return await verb.load();
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ERR_MODULE_NOT_FOUND') throw error;
    throw new HoldfastError('internal', `The command ${word} cannot be loaded: ${(error as Error).message}`, {
      remedy: "This installation is not whole: fetch it again and run 'npm ci'",
      cause: error,
    });
  }
}

function asksForHelp(args: readonly string[]): boolean {
  const end = args.indexOf('--');
  const own = end === -1 ? args : args.slice(0, end);
  return own.includes('--help') || own.includes('-h');
}

function helpOf(command: Command, args: readonly string[]): string {
  const subVerb = args.find((arg) => !arg.startsWith('-'));
  const sub = subVerb !== undefined && command.verbs !== undefined && Object.hasOwn(command.verbs, subVerb);
  const text = (sub ? command.verbs[subVerb]! : command).usage.trim();
  return `${text.startsWith('Usage:') ? '' : 'Usage: '}${text}\n`;
}

async function overview({ verbs, version }: CommandLine): Promise<string> {
  const rows = await Promise.all(
    Object.entries(verbs).map(async ([name, verb]) => {
      // Help must work in a broken installation too, so a command that cannot be loaded is only marked.
      const summary =
        verb.summary ??
        (await verb.load().then(
          ({ summary }) => summary,
          () => '(not installed)',
        ));
      return `  ${name.padEnd(10)}${summary}`;
    }),
  );
  return [
    `holdfast ${version}: backup of virtual machines, deduplicated, encrypted and verified at the source`,
    '',
    'Usage: holdfast <command> [options]',
    '',
    ...rows,
    '',
    "'holdfast <command> --help' tells more about one. Exit codes: 0 all well, 1 failed, 2 wrong usage, 130 interrupted.",
    '',
  ].join('\n');
}

function print(io: CommandIo, text: string): number {
  io.stdout.write(text);
  return 0;
}

function reportFailure({ io, debug }: CommandLine, error: unknown, argv: readonly string[]): number {
  const interrupted = io.signal.aborted && (isHoldfastError(error, 'cancelled') || isAbort(error, io.signal));
  const report =
    interrupted && !isHoldfastError(error) ? reportOf(new HoldfastError('cancelled', 'Interrupted')) : reportOf(error);
  if (argv.includes('--json')) io.stdout.write(`${JSON.stringify({ type: 'error', ...report })}\n`);
  else io.stderr.write(describeFailure(error, report));
  if (debug && error instanceof Error) io.stderr.write(`${error.stack}\n`);
  if (interrupted) return 130;
  return report.code === 'usage' ? 2 : 1;
}

function describeFailure(error: unknown, report: ReturnType<typeof reportOf>): string {
  const remedy =
    isHoldfastError(error) || report.code === 'cancelled'
      ? report.remedy
      : 'This is a bug: run again with HOLDFAST_DEBUG=1 and report it';
  return [
    `holdfast: ${report.message}`,
    report.tried === undefined ? '' : `  Tried: ${report.tried}`,
    remedy === undefined ? '' : `  What to do: ${remedy}`,
  ]
    .filter((text) => text !== '')
    .map((text) => `${text}\n`)
    .join('');
}

function isAbort(error: unknown, signal: AbortSignal): boolean {
  return error === signal.reason || (error instanceof Error && error.name === 'AbortError');
}
