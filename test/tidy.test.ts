import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { describe, expect, it } from 'vitest'
import { maskText, RULES, type SourceFile } from './tidy.ts'

const SOURCE = fileURLToPath(new URL('../src', import.meta.url))

function readSource(): SourceFile[] {
  return readdirSync(SOURCE, { recursive: true, encoding: 'utf8' })
    .filter(path => path.endsWith('.ts'))
    .sort()
    .map(path => ({ path: path.replaceAll('\\', '/'), text: readFileSync(join(SOURCE, path), 'utf8') }))
}

function find(rule: string, files: Record<string, string>): string[] {
  const found = RULES.find(({ name }) => name.includes(rule))
  if (!found) throw new Error(`no rule is named ${rule}`)
  return found.find(Object.entries(files).map(([path, text]) => ({ path, text })))
}

/** A function of so many lines, the first and the last included. */
function long(head: string, lines: number): string {
  return `${head} {\n${'  step()\n'.repeat(lines - 2)}}\n`
}

describe('the source', () => {
  const files = readSource()

  it('is read', () => {
    expect(files.length).toBeGreaterThan(0)
  })

  for (const rule of RULES) {
    it(rule.name, () => {
      expect(rule.find(files)).toEqual([])
    })
  }
})

describe('the checker of imports', () => {
  const rule = 'imports only what it may'

  it('finds a folder that imports what it may not, in every form of import', () => {
    const files = {
      'core/time.ts': '',
      'vault/writer.ts': '',
      'book/a.ts': "import { x } from '../core/time.ts'\nimport type { W } from '../vault/writer.ts'\n",
      'book/b.ts': "import {\n  x\n} from '../vault/writer.ts'\n",
      'book/c.ts': "import '../vault/writer.ts'\n",
      'book/d.ts': "export * from '../vault/writer.ts'\n",
      'book/e.ts': "const w = await import('../vault/writer.ts')\n",
      'book/f.ts': "// import { x } from '../vault/writer.ts'\nimport { join } from 'node:path'\n"
    }
    expect(find(rule, files)).toEqual([
      'src/book/a.ts:2 imports vault/writer.ts, but book may import only: core',
      'src/book/b.ts:3 imports vault/writer.ts, but book may import only: core',
      'src/book/c.ts:1 imports vault/writer.ts, but book may import only: core',
      'src/book/d.ts:1 imports vault/writer.ts, but book may import only: core',
      'src/book/e.ts:1 imports vault/writer.ts, but book may import only: core'
    ])
  })

  it('lets capture import the contract of the exchanges, but no exchange', () => {
    const files = {
      'exchanges/exchange.ts': '',
      'exchanges/okx.ts': '',
      'capture/engine.ts':
        "import type { Session } from '../exchanges/exchange.ts'\nimport { okx } from '../exchanges/okx.ts'\n"
    }
    expect(find(rule, files)).toEqual([
      'src/capture/engine.ts:2 imports exchanges/okx.ts, but capture may import only: core, exchanges/exchange.ts, book'
    ])
  })

  it('lets commands and cli.ts import everything, within the source', () => {
    const files = {
      'core/time.ts': '',
      'commands/run.ts': "import { x } from '../core/time.ts'\n",
      'cli.ts': "import { run } from './commands/run.ts'\nimport { y } from '../test/y.ts'\n"
    }
    expect(find(rule, files)).toEqual(['src/cli.ts:2 imports ../test/y.ts, which is no source file'])
  })

  it('finds a folder that nobody listed, and a file beside the folders', () => {
    expect(find(rule, { 'misc/a.ts': '', 'extra.ts': '' })).toEqual([
      'src/misc/a.ts:1 is in no folder that test/tidy.ts knows',
      'src/extra.ts:1 is in no folder that test/tidy.ts knows'
    ])
  })

  it('finds cycles, those of types included', () => {
    const files = {
      'core/a.ts': "import { b } from './b.ts'\n",
      'core/b.ts': "\nimport { c } from './c.ts'\n",
      'core/c.ts': "import type { A } from './a.ts'\n",
      'core/d.ts': "import { a } from './a.ts'\n"
    }
    expect(find('import each other', files)).toEqual([
      'src/core/c.ts:1 closes a cycle: core/a.ts > core/b.ts > core/c.ts > core/a.ts'
    ])
  })

  it('finds barrels and utils', () => {
    expect(find('no barrels', { 'core/index.ts': '', 'core/utils.ts': '', 'book/ladder.ts': '' })).toEqual([
      'src/core/index.ts:1 is named index.ts: say what it holds',
      'src/core/utils.ts:1 is named utils.ts: say what it holds'
    ])
  })
})

describe('the checker of words', () => {
  it('finds any as a type, and only as a type', () => {
    const text = 'let a: any\nlet b = x as any\nlet c: Array<any>\nlet d = Promise.any([])\n// any\nlet e = "any"\n'
    expect(find('no type is any', { 'core/a.ts': text })).toEqual([
      'src/core/a.ts:1 any: the type any',
      'src/core/a.ts:2 any: the type any',
      'src/core/a.ts:3 any: the type any'
    ])
  })

  it('finds clocks and chance where the same input must give the same bytes', () => {
    const text = 'Date.now()\nnew Date()\nnew Date\nperformance.now()\nMath.random()\nnew Date(recvMs)\nnew Date( )\n'
    const files = { 'book/a.ts': text, 'wire/a.ts': text, 'commands/a.ts': text, 'simulator/a.ts': text }
    expect(find('clocks and chance', files).map(finding => finding.split(' ')[0])).toEqual([
      'src/book/a.ts:1',
      'src/book/a.ts:2',
      'src/book/a.ts:3',
      'src/book/a.ts:4',
      'src/book/a.ts:5',
      'src/book/a.ts:7'
    ])
  })

  it('finds parsed floats outside the two files that may', () => {
    const text = 'const x = parseFloat(text)\n'
    expect(find('becomes a number', { 'core/decimal.ts': text, 'core/time.ts': text, 'book/a.ts': text })).toEqual([
      'src/book/a.ts:1 parseFloat(: parse with core/decimal.ts'
    ])
  })

  it('finds prices and sizes made into numbers', () => {
    const text = [
      'const a = Number(order.price)',
      'const b = +level.size',
      'return +bidPrices[0]',
      'use(+priceText, Number(sizes[at]))',
      'const c = Number(sizeBytes) + price.length + count',
      'const d = Number(match[1])'
    ].join('\n')
    const found = find('stay text', { 'exchanges/okx.ts': text, 'core/decimal.ts': text })
    expect(found.map(finding => finding.split(' ')[0])).toEqual([
      'src/exchanges/okx.ts:1',
      'src/exchanges/okx.ts:2',
      'src/exchanges/okx.ts:3',
      'src/exchanges/okx.ts:4',
      'src/exchanges/okx.ts:4'
    ])
  })

  it('finds the environment outside config and exits outside cli.ts', () => {
    const text = 'process.env.HOME\nprocess.exit(1)\nprocess.exitCode = 1\n'
    const files = { 'config/load.ts': text, 'cli.ts': text, 'commands/run.ts': text }
    expect(find('environment', files)).toEqual([
      'src/cli.ts:1 process.env: the environment is for config',
      'src/commands/run.ts:1 process.env: the environment is for config'
    ])
    expect(find('ends the process', files)).toEqual([
      'src/config/load.ts:2 process.exit: only cli.ts ends the process',
      'src/commands/run.ts:2 process.exit: only cli.ts ends the process'
    ])
  })
})

describe('the checker of functions', () => {
  const rule = 'functions have at most'

  it('finds long functions, methods and arrow functions, and lets 70 lines pass', () => {
    const heads = [
      'function f(a: { b: string })',
      'export async function* f<T extends string>(a = "{"): AsyncGenerator<{ b: T }>',
      'function f(): { a: number } | undefined',
      'function f(this: Host): asserts this is Live',
      'const f = (a: string): string =>',
      'const f = async () =>'
    ]
    for (const head of heads) {
      expect(find(rule, { 'core/a.ts': `\n${long(head, 71)}` }), head).toEqual([
        'src/core/a.ts:2 a function of 71 lines'
      ])
      expect(find(rule, { 'core/a.ts': long(head, 70) }), head).toEqual([])
    }
    const methods = [
      '  constructor(a: string)',
      '  private async go(a: string): Promise<void>',
      '  get x(): number',
      '  #y()'
    ]
    for (const head of methods) {
      const text = `class A {\n${long(head, 71)}}\n`
      expect(find(rule, { 'core/a.ts': text }), head).toEqual(['src/core/a.ts:2 a function of 71 lines'])
    }
  })

  it('takes no long table, type, class or run of calls for a function', () => {
    const rows = '  row(1),\n'.repeat(80)
    const text = `const table = [\n${rows}]\ninterface A {\n  go(): void\n${'  a: string\n'.repeat(80)}}\n${long('class B', 90)}`
    expect(find(rule, { 'core/a.ts': text })).toEqual([])
  })
})

describe('the checker of doc comments', () => {
  const rule = 'doc comment'

  it('finds every kind of exported declaration without one', () => {
    const lines = [
      'export const a = 1',
      'export let b = 1',
      'export function c() {}',
      'export async function d() {}',
      'export class E {}',
      'export abstract class F {}',
      'export interface G {}',
      'export type H = string',
      '// a comment for nobody\nexport const i = 1',
      '/* not a doc comment */\nexport const j = 1',
      'export { k }'
    ]
    for (const line of lines) expect(find(rule, { 'core/a.ts': `${line}\n` }), line).toHaveLength(1)
    expect(find(rule, { 'core/a.ts': '\nexport const a = 1\n' })).toEqual(['src/core/a.ts:2 a has no doc comment'])
  })

  it('accepts documented declarations, overloads, runs of short ones and what is not exported', () => {
    const text = [
      '/** Says what. */',
      'export const a = 1',
      'export const b = 2',
      '',
      '/**',
      ' * Says more.',
      ' */',
      '// biome-ignore lint/x/y: because',
      'export function c(x: string): void',
      '',
      'export function c(x: number): void {}',
      '',
      'const d = 1',
      "export type { E } from './e.ts'"
    ].join('\n')
    expect(find(rule, { 'core/a.ts': text })).toEqual([])
  })

  it('does not let a comment reach over an empty line', () => {
    const text = '/** Says what. */\nexport const a = 1\n\nexport const b = 2\n'
    expect(find(rule, { 'core/a.ts': text })).toEqual(['src/core/a.ts:4 b has no doc comment'])
  })
})

describe('maskText', () => {
  it('blanks comments, strings and regular expressions, and keeps code and places', () => {
    const cases: [string, string][] = [
      ["a('b // c') // d", "a('      ')     "],
      ['/* a\n} */ b', '    \n     b'],
      ["`x @{y('}')} z` + w", "`  @{y(' ')}  ` + w"],
      ['`a @{`b @{c} d`} e`', '`  @{`  @{c}  `}  `'],
      ['x = /["\'`{]/g.test(y)', 'x =          .test(y)'],
      ['x = a / b / c', 'x = a / b / c'],
      ['return /[/"]/', 'return       '],
      ["'it\\'s' + \"{\"", '\'     \' + " "']
    ]
    // In the templates @ stands for $, which the linter would take for a template in the wrong quotes.
    for (const [text, masked] of cases) {
      expect(maskText(text.replaceAll('@', '$'))).toBe(masked.replaceAll('@', '$'))
    }
  })
})
