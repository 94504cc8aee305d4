import { dirname, join } from 'node:path/posix'

/** A source file. `path` is relative to `src`, with forward slashes: `core/decimal.ts`. */
export interface SourceFile {
  path: string
  text: string
}

/** A rule of the house: what it demands, and a pure function from files to findings, `src/<path>:<line> <what>` each. */
export interface Rule {
  name: string
  find: (files: SourceFile[]) => string[]
}

/** The folders of ours that each folder may import besides itself. A trailing file name narrows it to that file. */
const MAY_IMPORT: Record<string, string[]> = {
  core: [],
  book: ['core'],
  exchanges: ['core', 'book'],
  capture: ['core', 'exchanges/exchange.ts', 'book'],
  vault: ['core'],
  wire: ['core', 'exchanges', 'capture'],
  config: ['core', 'exchanges'],
  quality: ['core', 'book'],
  replay: ['core', 'book', 'vault'],
  simulator: ['core'],
  'l3cap.ts': ['core', 'book', 'replay']
}
/** They wire the parts together, so they may import everything. */
const TOP = ['commands', 'cli.ts']
const FUNCTION_LINES_MAX = 70
const FORBIDDEN_NAMES = ['index', 'util', 'utils']

/** Every rule, in the order of the style guide. */
export const RULES: Rule[] = [
  { name: 'a folder imports only what it may', find: findForeignImports },
  { name: 'no two files import each other, however far around', find: findCycles },
  { name: 'no barrels and no utils', find: findForbiddenNames },
  { name: 'no type is any', find: files => findWords(files, [], /(?<![.\w$])any\b(?!\s*[(:])/g, 'the type any') },
  {
    name: 'clocks and chance stay in wire, commands and simulator',
    find: files =>
      findWords(
        files,
        ['wire/', 'commands/', 'simulator/'],
        /\bDate\.now\b|\bnew Date\b(?!\s*\(\s*[^)\s])|\bperformance\.now\b|\bMath\.random\b/g,
        'time and chance are arguments here'
      )
  },
  {
    name: 'text becomes a number in core/decimal.ts and core/time.ts only',
    find: files =>
      findWords(files, ['core/decimal.ts', 'core/time.ts'], /\bparseFloat\s*\(/g, 'parse with core/decimal.ts')
  },
  { name: 'prices and sizes stay text outside core/decimal.ts', find: findParsedPrices },
  {
    name: 'the environment is read in config only',
    find: files => findWords(files, ['config/'], /\bprocess\.env\b/g, 'the environment is for config')
  },
  {
    name: 'only cli.ts ends the process',
    find: files => findWords(files, ['cli.ts'], /\bprocess\.exit\b/g, 'only cli.ts ends the process')
  },
  { name: `functions have at most ${FUNCTION_LINES_MAX} lines`, find: findLongFunctions },
  { name: 'everything exported has a doc comment', find: findUndocumented }
]

/**
 * The text with comments, the insides of strings and regular expressions turned into spaces; code inside `${}` stays.
 * Every other character keeps its place, so that offsets and lines agree with the original.
 */
export function maskText(text: string): string {
  const open: ('{' | '${')[] = []
  const token = /\/\/[^\n]*|\/\*[\s\S]*?\*\/|'(?:\\.|[^'\\\n])*'|"(?:\\.|[^"\\\n])*"|[`{}/]/g
  let masked = ''
  const keep = (end: number): void => {
    masked += text.slice(masked.length, end)
  }
  const blank = (end: number): void => {
    masked += text.slice(masked.length, end).replace(/[^\n]/g, ' ')
  }
  for (let match = token.exec(text); match; match = token.exec(text)) {
    const found = match[0]
    const end = match.index + found.length
    keep(match.index)
    if (found === '`' || (found === '}' && open.pop() === '${')) {
      keep(end)
      blank(endOfTemplatePart(text, end))
      const opensCode = text[masked.length] === '$'
      if (opensCode) open.push('${')
      keep(masked.length + (opensCode ? 2 : 1))
    } else if (found === '{' || found === '}') {
      if (found === '{') open.push(found)
      keep(end)
    } else if (found === '/') {
      blank(endOfRegularExpression(text, match.index, masked))
      if (masked.length === match.index) keep(end)
    } else if (found.startsWith('/')) {
      blank(end)
    } else {
      keep(match.index + 1)
      blank(end - 1)
      keep(end)
    }
    token.lastIndex = masked.length
  }
  return masked + text.slice(masked.length)
}

/** The offset of the backtick or `${` that ends the part of a template that starts at `at`. */
function endOfTemplatePart(text: string, at: number): number {
  let end = at
  while (end < text.length && text[end] !== '`' && !text.startsWith('${', end)) end += text[end] === '\\' ? 2 : 1
  return end
}

/** The end of the regular expression that starts at a slash, or the slash itself when it is a division. */
function endOfRegularExpression(text: string, at: number, masked: string): number {
  const before = masked.trimEnd().slice(-12)
  if (/[\w$)\]}]$/.test(before) && !/\b(?:return|typeof|case|in|of)$/.test(before)) return at
  const match = /^\/(?:\\.|\[(?:\\.|[^\]\\\n])*\]|[^/\\[\n])+\/[a-z]*/.exec(text.slice(at))
  return match ? at + match[0].length : at
}

function lineAt(text: string, offset: number): number {
  return text.slice(0, offset).split('\n').length
}

function place(file: SourceFile, offset: number): string {
  return `src/${file.path}:${lineAt(file.text, offset)}`
}

function folderOf(path: string): string {
  return path.split('/')[0] ?? path
}

interface Import {
  offset: number
  /** Relative to `src`. */
  target: string
}

/** The imports of our own files, type-only, re-exported and dynamic ones included. */
function importsOf(file: SourceFile): Import[] {
  const found: Import[] = []
  for (const match of maskText(file.text).matchAll(/\b(?:from\s*|import\s*\(?\s*)(['"])( *)\1/g)) {
    const end = match.index + match[0].length - 1
    const specifier = file.text.slice(end - (match[2]?.length ?? 0), end)
    if (specifier.startsWith('.')) found.push({ offset: match.index, target: join(dirname(file.path), specifier) })
  }
  return found
}

function findForeignImports(files: SourceFile[]): string[] {
  const known = new Set(files.map(file => file.path))
  return files.flatMap(file => {
    const from = folderOf(file.path)
    const allowed = TOP.includes(from) ? undefined : MAY_IMPORT[from]
    if (!allowed && !TOP.includes(from)) return [`src/${file.path}:1 is in no folder that test/tidy.ts knows`]
    return importsOf(file).flatMap(({ offset, target }) => {
      if (!known.has(target)) return [`${place(file, offset)} imports ${target}, which is no source file`]
      const to = folderOf(target)
      if (!allowed || to === from || allowed.includes(to) || allowed.includes(target)) return []
      return [
        `${place(file, offset)} imports ${target}, but ${from} may import only: ${allowed.join(', ') || 'nothing'}`
      ]
    })
  })
}

function findCycles(files: SourceFile[]): string[] {
  const byPath = new Map(files.map(file => [file.path, file]))
  const done = new Set<string>()
  const trail: string[] = []
  const findings: string[] = []
  const visit = (file: SourceFile): void => {
    trail.push(file.path)
    for (const { offset, target } of importsOf(file)) {
      const start = trail.indexOf(target)
      const next = byPath.get(target)
      if (start >= 0)
        findings.push(`${place(file, offset)} closes a cycle: ${[...trail.slice(start), target].join(' > ')}`)
      else if (next && !done.has(target)) visit(next)
    }
    trail.pop()
    done.add(file.path)
  }
  for (const file of files) if (!done.has(file.path)) visit(file)
  return findings
}

function findForbiddenNames(files: SourceFile[]): string[] {
  return files.flatMap(({ path }) => {
    const name = path.split('/').find(part => FORBIDDEN_NAMES.includes(part.replace(/\..*/, '')))
    return name ? [`src/${path}:1 is named ${name}: say what it holds`] : []
  })
}

/** Findings for each place where code, not comments or text, matches; files under the exempt paths may. */
function findWords(files: SourceFile[], exempt: string[], pattern: RegExp, why: string): string[] {
  return files
    .filter(file => !exempt.some(path => file.path === path || (path.endsWith('/') && file.path.startsWith(path))))
    .flatMap(file =>
      [...maskText(file.text).matchAll(pattern)].map(match => `${place(file, match.index)} ${match[0].trim()}: ${why}`)
    )
}

/** `Number(order.price)`, `+level.size` and the like. Names that end in a unit, `sizeBytes`, count other things. */
function findParsedPrices(files: SourceFile[]): string[] {
  const name = String.raw`[\w$.?!\[\]]*(?:price|size|amount|quantity|volume)(?:s|Text)?(?:\[\w+\])?[!)\s,;]`
  const call = String.raw`\b(?:Number|Number\.parseFloat|parseFloat)\s*\(\s*${name}`
  const plus = String.raw`(?:[=(,:?[{]|\breturn\b|=>)\s*\+\s*${name}`
  return findWords(files, ['core/decimal.ts'], new RegExp(`${call}|${plus}`, 'gi'), 'prices and sizes stay text')
}

function findLongFunctions(files: SourceFile[]): string[] {
  return files.flatMap(file => {
    const code = maskText(file.text)
    return functionsOf(code).flatMap(({ start, end }) => {
      const lines = lineAt(code, end) - lineAt(code, start) + 1
      return lines > FUNCTION_LINES_MAX ? [`${place(file, start)} a function of ${lines} lines`] : []
    })
  })
}

/** Where functions, methods and arrow functions with a body start and end in masked code. */
function functionsOf(code: string): { start: number; end: number }[] {
  const keywords = 'if|for|while|switch|catch|return|function|await|throw|typeof|new|super|import|do|else|yield'
  const modifiers = String.raw`(?:(?:public|private|protected|static|async|override|get|set)\s+)*\*?\s*#?`
  const method = String.raw`^[ \t]+(?!(?:${keywords})\b)${modifiers}[\w$]+\s*(?:<[^(\n]*>)?(?=\()`
  const named = String.raw`\bfunction\b\s*\*?\s*[\w$]*\s*(?:<[^(]*>)?(?=\()`
  const arrow = String.raw`=>\s*(?=\{)`
  return [...code.matchAll(new RegExp(`${method}|${named}|${arrow}`, 'gm'))].flatMap(match => {
    const start = match.index + match[0].search(/\S/)
    const next = match.index + match[0].length
    const body = code[next] === '{' ? next : startOfBody(code, endOfPair(code, next))
    return body < 0 ? [] : [{ start, end: endOfPair(code, body) }]
  })
}

/** The offset of the brace that opens the body after a parameter list, or -1 when there is none. */
function startOfBody(code: string, parametersEnd: number): number {
  let at = parametersEnd + 1
  const colon = /^\s*:/.exec(code.slice(at, at + 200))
  if (!colon) return /^\s*\{/.test(code.slice(at, at + 200)) ? code.indexOf('{', at) : -1
  at += colon[0].length
  // In a return type a brace follows a sign; the brace of the body follows the end of a type.
  for (let before = ':'; at < code.length; at++) {
    const sign = code[at] ?? ''
    if (/\s/.test(sign)) continue
    if (sign === '{' && /[\w$>\])}'"`]/.test(before) && !code.slice(0, at).trimEnd().endsWith('=>')) return at
    if (';)}='.includes(sign) && !code.startsWith('=>', at)) return -1
    if ('{(['.includes(sign)) at = endOfPair(code, at)
    before = code[at] ?? ''
  }
  return -1
}

/** The offset of the bracket that closes the one at `at`, or the end of the code. */
function endOfPair(code: string, at: number): number {
  let depth = 0
  for (let end = at; end < code.length; end++) {
    if ('([{'.includes(code[end] ?? '')) depth++
    else if (')]}'.includes(code[end] ?? '') && --depth === 0) return end
  }
  return code.length
}

function findUndocumented(files: SourceFile[]): string[] {
  return files.flatMap(file => {
    const code = maskText(file.text)
    const documented = new Set<string>()
    let coveredLine = -1
    const declaration =
      /^export\s+(?:default\s+)?(?:declare\s+)?(?:abstract\s+)?(?:async\s+)?(?:const\s+enum|const|let|function\s*\*?|class|interface|type|enum|namespace)\s+(?!\{)([\w$]+)[^\n]*|^export\s*\{[^}]*\}(?!\s*from)/gm
    return [...code.matchAll(declaration)].flatMap(match => {
      const name = match[1]
      const line = lineAt(code, match.index)
      if (!name) return [`${place(file, match.index)} an export list: export things where they are declared`]
      const before = file.text
        .slice(0, match.index)
        .trimEnd()
        .replace(/(?:\n[ \t]*\/\/[^\n]*)+$/, '')
        .trimEnd()
      const comment = before.endsWith('*/') ? before.slice(before.lastIndexOf('/*')) : ''
      // Overloads, and lines that directly follow a documented one-line export, share its comment.
      if (!comment.startsWith('/**') && !documented.has(name) && coveredLine !== line - 1) {
        return [`${place(file, match.index)} ${name} has no doc comment`]
      }
      documented.add(name)
      coveredLine = line
      return []
    })
  })
}
