# Which lines of a Ruby program run, by Ruby's own coverage; runs inside the sandbox: ruby_lines.rb REPORT PROGRAM
require "coverage"
require "json"

report = File.expand_path(ARGV.shift)
program = File.expand_path(ARGV.shift)
Coverage.start(lines: true)
mine = Process.pid
at_exit do
  if Process.pid == mine
    found = Coverage.result.fetch(program, { lines: [] })[:lines]
    hits = {}
    can = []
    found.each_with_index do |count, index|
      next if count.nil?
      can << index + 1
      hits[index + 1] = count
    end
    File.write(report, JSON.generate({ executable: can, hits: hits }))
  end
end
$0 = program
load program
