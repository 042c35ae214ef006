builtin.module {
  func.func @main(%0: tensor<2x3x6x4xf32> {qnn.name = "x"}) -> (tensor<2x6x6xf32> {qnn.name = "matmul"}, tensor<2x6xf32> {qnn.name = "mean"}) {
    %1 = qnn.quantize %0 : tensor<2x3x6x4xf32> -> tensor<2x3x6x4x!qnn.int<8, 0.019898556172847748, -11>>
    %2 = qnn.constant dense<[[[[-1]], [[21]], [[-127]]], [[[-82]], [[126]], [[-127]]], [[[-9]], [[127]], [[46]]], [[[4]], [[-127]], [[73]]], [[[-127]], [[-51]], [[-60]]], [[[-23]], [[2]], [[127]]]]> : tensor<6x3x1x1xi8> : tensor<6x3x1x1xi8>
    %3 = qnn.constant dense<[7.07583749e-05, 7.34126224e-05, 8.9486668e-05, 7.83936557e-05, 6.44330139e-05, 7.461220e-05]> : tensor<6xf32> : tensor<6xf32>
    %4 = qnn.constant dense<[0.0720757321, 0.517128468, 0.353172332, -0.365008891, 0.258943945, -0.408126622]> : tensor<6xf32> : tensor<6xf32>
    %5 = qnn.conv2d %1, %2, %3, %4 : (tensor<2x3x6x4x!qnn.int<8, 0.019898556172847748, -11>>, tensor<6x3x1x1xi8>, tensor<6xf32>, tensor<6xf32>) -> tensor<2x6x6x4xf32>
    %6 = qnn.hardswish %5 : tensor<2x6x6x4xf32>
    %7 = qnn.quantize %6 : tensor<2x6x6x4xf32> -> tensor<2x6x6x4x!qnn.int<8, 0.008069750852882862, -82>>
    %8 = qnn.dequantize %7 : tensor<2x6x6x4x!qnn.int<8, 0.008069750852882862, -82>> -> tensor<2x6x6x4xf32>
    %9 = qnn.sigmoid %8 : tensor<2x6x6x4xf32>
    %10 = qnn.quantize %9 : tensor<2x6x6x4xf32> -> tensor<2x6x6x4x!qnn.int<8, 0.003290265565738082, -128>>
    %11 = qnn.avg_pool2d %10 kernel <6, 4> strides <6, 4> : tensor<2x6x6x4x!qnn.int<8, 0.003290265565738082, -128>> -> tensor<2x6x1x1xf32>
    %12 = qnn.quantize %11 : tensor<2x6x1x1xf32> -> tensor<2x6x1x1x!qnn.int<8, 0.0022851251997053623, -128>>
    %13 = qnn.dequantize %12 : tensor<2x6x1x1x!qnn.int<8, 0.0022851251997053623, -128>> -> tensor<2x6x1x1xf32>
    %14 = qnn.mul %13, %8 : (tensor<2x6x1x1xf32>, tensor<2x6x6x4xf32>) -> tensor<2x6x6x4xf32>
    %15 = qnn.quantize %14 : tensor<2x6x6x4xf32> -> tensor<2x6x6x4x!qnn.int<8, 0.004694201052188873, -82>>
    %16 = qnn.avg_pool2d %15 kernel <2, 2> strides <2, 2> : tensor<2x6x6x4x!qnn.int<8, 0.004694201052188873, -82>> -> tensor<2x6x3x2xf32>
    %17 = qnn.quantize %16 : tensor<2x6x3x2xf32> -> tensor<2x6x3x2x!qnn.int<8, 0.002158797811716795, -73>>
    %18 = qnn.reshape %17 : tensor<2x6x3x2x!qnn.int<8, 0.002158797811716795, -73>> -> tensor<2x6x6x!qnn.int<8, 0.002158797811716795, -73>>
    %19 = qnn.dequantize %18 : tensor<2x6x6x!qnn.int<8, 0.002158797811716795, -73>> -> tensor<2x6x6xf32>
    %20 = qnn.quantize %19 : tensor<2x6x6xf32> -> tensor<2x6x6x!qnn.int<8, 0.002158797811716795, -73>>
    %21 = qnn.permute %20 order <0, 2, 1> : tensor<2x6x6x!qnn.int<8, 0.002158797811716795, -73>> -> tensor<2x6x6x!qnn.int<8, 0.002158797811716795, -73>>
    %22 = qnn.dequantize %21 : tensor<2x6x6x!qnn.int<8, 0.002158797811716795, -73>> -> tensor<2x6x6xf32>
    %23 = qnn.quantize %22 : tensor<2x6x6xf32> -> tensor<2x6x6x!qnn.int<8, 0.002158797811716795, -73>>
    %24 = qnn.constant dense<[[-72, 50, 56, 127, -54, 0], [68, -127, 95, -109, 2, -22], [-81, 20, 127, -45, -91, -57], [-127, 58, -62, -86, -74, 74], [88, 127, 60, -55, -46, 49]]> : tensor<5x6xi8> : tensor<5x6xi8>
    %25 = qnn.constant dense<[5.20626099e-06, 6.71120506e-06, 5.73846137e-06, 6.87814463e-06, 5.32627291e-06]> : tensor<5xf32> : tensor<5xf32>
    %26 = qnn.constant dense<[0.335594267, 0.110999525, -0.193160787, -0.1919083, -0.38598612]> : tensor<5xf32> : tensor<5xf32>
    %27 = qnn.linear %23, %24, %25, %26 : (tensor<2x6x6x!qnn.int<8, 0.002158797811716795, -73>>, tensor<5x6xi8>, tensor<5xf32>, tensor<5xf32>) -> tensor<2x6x5xf32>
    %28 = qnn.quantize %27 : tensor<2x6x5xf32> -> tensor<2x6x5x!qnn.int<8, 0.003086693352088332, 3>>
    %29 = qnn.constant dense<[[31, -80, -127, 125, -93, -16], [45, 5, -106, -127, 125, 26], [127, -51, 45, -35, -7, -93], [62, 58, -4, -41, -113, 127], [-127, 70, -57, -82, 31, -89]]> : tensor<5x6xi8> : tensor<5x6xi8>
    %30 = qnn.constant dense<[6.18715421e-06, 5.60940634e-06, 5.75723834e-06, 4.79902428e-06, 5.16598357e-06]> : tensor<5xf32> : tensor<5xf32>
    %31 = qnn.constant dense<[0.0940623879, 0.0801721513, -0.303120077, 0.0679727495, 0.173884869]> : tensor<5xf32> : tensor<5xf32>
    %32 = qnn.linear %23, %29, %30, %31 : (tensor<2x6x6x!qnn.int<8, 0.002158797811716795, -73>>, tensor<5x6xi8>, tensor<5xf32>, tensor<5xf32>) -> tensor<2x6x5xf32>
    %33 = qnn.quantize %32 : tensor<2x6x5xf32> -> tensor<2x6x5x!qnn.int<8, 0.002207593759521842, 18>>
    %34 = qnn.permute %33 order <0, 2, 1> : tensor<2x6x5x!qnn.int<8, 0.002207593759521842, 18>> -> tensor<2x5x6x!qnn.int<8, 0.002207593759521842, 18>>
    %35 = qnn.dequantize %34 : tensor<2x5x6x!qnn.int<8, 0.002207593759521842, 18>> -> tensor<2x5x6xf32>
    %36 = qnn.quantize %35 : tensor<2x5x6xf32> -> tensor<2x5x6x!qnn.int<8, 0.002207593759521842, 18>>
    %37 = qnn.matmul %28, %36 : (tensor<2x6x5x!qnn.int<8, 0.003086693352088332, 3>>, tensor<2x5x6x!qnn.int<8, 0.002207593759521842, 18>>) -> tensor<2x6x6xf32>
    %38 = qnn.avg_pool2d %15 kernel <6, 4> strides <6, 4> : tensor<2x6x6x4x!qnn.int<8, 0.004694201052188873, -82>> -> tensor<2x6x1x1xf32>
    %39 = qnn.reshape %38 : tensor<2x6x1x1xf32> -> tensor<2x6xf32>
    func.return %37, %39 : tensor<2x6x6xf32>, tensor<2x6xf32>
  }
}
