import { spawnSync } from 'node:child_process'
import { mkdirSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { describe, expect, it } from 'vitest'

const ROOT = fileURLToPath(new URL('..', import.meta.url))
const CLEAN = "/** Waits. */\nexport async function wait(): Promise<void> {\n  await Promise.resolve('done')\n}\n"

/** Runs the linter with the project's own settings on files planted inside the project. */
function lint(files: Record<string, string>): { code: number | null; said: string } {
  // Inside the project, because the linter takes its settings from there; hidden, so that tsc and vitest pass it by.
  const folder = join(ROOT, 'test', `.planted-${process.pid}`)
  try {
    mkdirSync(folder)
    for (const [name, text] of Object.entries(files)) writeFileSync(join(folder, name), text)
    const { status, stdout, stderr } = spawnSync(
      process.execPath,
      [
        join(ROOT, 'node_modules/@biomejs/biome/bin/biome'),
        'check',
        '--error-on-warnings',
        '--reporter=github',
        folder
      ],
      { cwd: ROOT, encoding: 'utf8' }
    )
    return { code: status, said: stdout + stderr }
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}

describe('the linter', () => {
  it('passes a clean file', () => {
    expect(lint({ 'clean.ts': CLEAN })).toMatchObject({ code: 0 })
  })

  // Some of these rules are young, and a setting they do not know is passed over in silence: so each is seen to work.
  const planted: [string, string, Record<string, string>][] = [
    [
      'a promise that nobody awaits',
      'lint/nursery/noFloatingPromises',
      { 'bad.ts': 'async function wait(): Promise<void> {}\n\nwait()\n' }
    ],
    [
      'a promise from another file that nobody awaits',
      'lint/nursery/noFloatingPromises',
      { 'clean.ts': CLEAN, 'bad.ts': "import { wait } from './clean.ts'\n\nwait()\n" }
    ],
    [
      'a promise where a condition belongs',
      'lint/nursery/noMisusedPromises',
      { 'clean.ts': CLEAN, 'bad.ts': "import { wait } from './clean.ts'\n\nif (wait()) console.log('always')\n" }
    ],
    ['an explicit any', 'lint/suspicious/noExplicitAny', { 'bad.ts': 'export const open = (text: any) => text\n' }],
    ['an unused import', 'lint/correctness/noUnusedImports', { 'bad.ts': "import { join } from 'node:path'\n" }],
    ['bad formatting', 'format', { 'bad.ts': 'export  const a = "b";\n' }]
  ]
  for (const [what, rule, files] of planted) {
    it(`finds ${what}`, () => {
      const { code, said } = lint(files)
      expect(said).toContain(`::error title=${rule},file=`)
      expect(said).toContain('bad.ts')
      expect(code).toBe(1)
    })
  }
})
