import { execFileSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'

const ROOT = fileURLToPath(new URL('..', import.meta.url))
const VERSION = (JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8')) as { version: string }).version

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

  it('brings its example configurations and no source or tests', () => {
    const installed = join(folder, 'node_modules', 'l3cap')
    expect(JSON.parse(readFileSync(join(installed, 'config', 'default.json'), 'utf8'))).toHaveProperty('exchanges')
    expect(() => readFileSync(join(installed, 'test', 'package.test.ts'))).toThrow('ENOENT')
    expect(() => readFileSync(join(installed, 'src', 'cli.ts'))).toThrow('ENOENT')
  })
})
