import { execFileSync } from 'node:child_process'
import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { MadeVault } from './replay/maker.ts'

const ROOT = fileURLToPath(new URL('..', import.meta.url))
const VERSION = (JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8')) as { version: string }).version

/** What a project that uses the library may look like. */
const CONSUMER = `
import { applyEvent, bookAt, L3capError, openVault, OrderBook, readEvents } from 'l3cap'
import type { BookAt, EventRecord, VaultInstrument } from 'l3cap'

declare const process: { argv: string[] }
declare const console: { log(...words: unknown[]): void }

const vault = openVault(process.argv[2]!)
const instruments: VaultInstrument[] = vault.instruments()
const { exchange, name: symbol } = instruments[0]!
const types: EventRecord['event_type'][] = []
const book = new OrderBook()
for await (const event of readEvents(vault, { exchange, symbol })) {
  if ('bids' in event) throw new L3capError('USAGE', 'these are levels')
  types.push(event.event_type)
  if (applyEvent(book, event) !== null) throw new Error('it does not fit')
}
const state: BookAt = await bookAt(vault, { symbol, at: 'latest' })
const before = await bookAt(vault, { symbol, at: state.atUs - 1 })
if (state.level === 'l3' && state.book.size !== book.size) throw new Error('they differ')
const kind: 'no_image' | undefined = before.reason?.kind === 'no_image' ? 'no_image' : undefined
console.log(...types, state.book.best(false), state.book.best(true), state.trusted, kind)
`

/** Runs a command and returns its stdout; throws, with what it said, when it fails. */
function run(cwd: string, command: string, ...words: string[]): string {
  // On Windows npm and installed commands are .cmd files, which only a shell can start.
  return execFileSync(command, words, { cwd, encoding: 'utf8', stdio: 'pipe', shell: process.platform === 'win32' })
}

describe('the package', () => {
  const folder = mkdtempSync(join(tmpdir(), 'l3cap-package-'))
  const archive = `l3cap-${VERSION}.tgz`

  beforeAll(() => {
    // Without scripts: packing would build, and change dist under the feet of the tests that run it.
    run(ROOT, 'npm', 'pack', '--ignore-scripts', '--pack-destination', folder)
    writeFileSync(join(folder, 'package.json'), '{ "private": true }\n')
    run(folder, 'npm', 'install', `./${archive}`, '--prefer-offline', '--no-audit', '--no-fund')
  }, 120_000)

  afterAll(() => {
    rmSync(folder, { recursive: true, force: true })
  })

  it('brings a command that works where it is installed', () => {
    expect(run(folder, join(folder, 'node_modules', '.bin', 'l3cap'), '--help')).toContain('l3cap')
  })

  it('brings a library with types, which starts nothing', () => {
    writeFileSync(join(folder, 'package.json'), '{ "private": true, "type": "module" }\n')
    writeFileSync(join(folder, 'use.ts'), CONSUMER)
    const tsc = join(ROOT, 'node_modules', 'typescript', 'bin', 'tsc')
    const strict = ['--strict', '--module', 'nodenext', '--target', 'es2023', '--skipLibCheck', 'false', '--types', '']
    run(folder, process.execPath, tsc, ...strict, 'use.ts')
    const vault = join(folder, 'vault')
    const made = new MadeVault().begin(1)
    cpSync(made.path, vault, { recursive: true })
    made.remove()
    // It ends by itself: no timer, socket or worker is left.
    expect(run(folder, process.execPath, 'use.js', vault)).toBe('clear snapshot snapshot 100 101 true no_image\n')
  }, 60_000)

  it('brings its example configurations and no source or tests', () => {
    const installed = join(folder, 'node_modules', 'l3cap')
    expect(JSON.parse(readFileSync(join(installed, 'config', 'default.json'), 'utf8'))).toHaveProperty('exchanges')
    expect(() => readFileSync(join(installed, 'test', 'package.test.ts'))).toThrow('ENOENT')
    expect(() => readFileSync(join(installed, 'src', 'cli.ts'))).toThrow('ENOENT')
  })
})
