// Which lines of a Java program ran, by what JaCoCo recorded; runs inside the sandbox: LlmfwLines RECORD
import java.io.File;
import java.util.TreeMap;
import java.util.TreeSet;
import org.jacoco.core.analysis.Analyzer;
import org.jacoco.core.analysis.CoverageBuilder;
import org.jacoco.core.analysis.IClassCoverage;
import org.jacoco.core.analysis.ICounter;
import org.jacoco.core.analysis.IMethodCoverage;
import org.jacoco.core.tools.ExecFileLoader;

public class LlmfwLines {
    public static void main(String[] words) throws Exception {
        ExecFileLoader record = new ExecFileLoader();
        record.load(new File(words[0]));
        CoverageBuilder found = new CoverageBuilder();
        Analyzer analyzer = new Analyzer(record.getExecutionDataStore(), found);
        for (File file : new File(".").listFiles()) {
            String name = file.getName();
            if (name.endsWith(".class") && !name.equals("LlmfwLines.class")) analyzer.analyzeAll(file);
        }
        TreeMap<Integer, Boolean> lines = new TreeMap<>();
        for (IClassCoverage one : found.getClasses()) {
            for (IMethodCoverage method : one.getMethods()) {
                boolean implicit = method.getName().equals("<init>")
                    && method.getInstructionCounter().getTotalCount() <= 3
                    && method.getLineCounter().getTotalCount() == 1;
                if (implicit) continue; // the compiler made it
                for (int line = method.getFirstLine(); line > 0 && line <= method.getLastLine(); line++) {
                    int status = method.getLine(line).getStatus();
                    if (status != ICounter.EMPTY) {
                        lines.merge(line, status != ICounter.NOT_COVERED, Boolean::logicalOr);
                    }
                }
            }
        }
        StringBuilder hits = new StringBuilder();
        for (Integer line : lines.keySet()) {
            if (lines.get(line)) hits.append(hits.length() == 0 ? "" : ", ").append("\"" + line + "\": 1");
        }
        System.out.println("{\"executable\": " + new TreeSet<>(lines.keySet()) + ", \"hits\": {" + hits + "}}");
    }
}
