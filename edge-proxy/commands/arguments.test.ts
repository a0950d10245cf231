import assert from 'node:assert/strict';
import { test } from 'node:test';
import { HoldfastError } from '#contract/errors.ts';
import { parseArguments } from './arguments.ts';
import { suggestionsFor } from './suggestion.ts';

const rules = {
  command: 'vault backup',
  options: {
    repo: { type: 'string' },
    disk: { type: 'string', multiple: true },
    json: { type: 'boolean' },
  },
  required: ['repo'],
} as const;

function refusal(argv: string[], more: { positionals?: { min?: number; max: number; what: string } } = {}): string {
  try {
    parseArguments({ ...rules, ...more, required: ['repo'] }, argv);
  } catch (error) {
    assert.ok(error instanceof HoldfastError);
    assert.equal(error.code, 'usage');
    return `${error.message} | ${error.remedy}`;
  }
  assert.fail('accepted');
}

test('options are parsed by their types', () => {
  const { values } = parseArguments({ ...rules, required: ['repo'] }, [
    '--repo=r',
    '--disk',
    'a',
    '--disk',
    'b',
    '--no-json',
  ]);
  assert.deepEqual({ ...values }, { repo: 'r', disk: ['a', 'b'], json: false });
});

test('an unknown option is refused and the nearest known one is suggested', () => {
  assert.equal(
    refusal(['--repo', 'r', '--dsik', 'a']),
    'Unknown option --dsik | Did you mean --disk? See holdfast vault backup --help',
  );
  assert.match(refusal(['--repo', 'r', '--no-disk']), /Unknown option '?--no-disk/);
  assert.equal(refusal(['-x', '--repo', 'r']), 'Unknown option -x | See holdfast vault backup --help');
});

test('what is missing, malformed or too much is named', () => {
  assert.match(refusal([]), /vault backup needs --repo/);
  assert.match(refusal(['--repo']), /--repo.*argument missing/);
  assert.match(refusal(['--repo', 'r', '--json=yes']), /--json.*does not take an argument/);
  assert.match(refusal(['--repo', 'r', 'stray']), /Unexpected "stray"/);
  assert.match(refusal(['--repo', 'r'], { positionals: { min: 1, max: 1, what: 'a point' } }), /needs a point/);
});

test('suggestions are near words only, nearest first', () => {
  const known = ['backup', 'restore', 'points', 'verify', 'delete', 'stats', 'serve'];
  assert.deepEqual(suggestionsFor('bakcup', known), ['backup']);
  assert.deepEqual(suggestionsFor('stat', known), ['stats']);
  assert.deepEqual(suggestionsFor('rest', known), ['restore']);
  assert.deepEqual(suggestionsFor('zzz', known), []);
});
